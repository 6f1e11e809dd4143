//! The program: arguments in, exit status out. Everything it does is done through the library.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
