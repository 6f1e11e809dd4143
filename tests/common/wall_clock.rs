//! A host whose wall clock is wrong, on a kernel that has but one: what runs there has a library loaded
//! before its own, and is told of a vDSO in the place of the kernel's, both of which say another time.
//! That is where programs ask for the time: libc's by name, rustix by the ELF image. Needs `cc`, x86_64.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// As vdso(7) has it: one segment, the two functions that rustix insists on.
const VDSO: &str = r#"
struct timespec { long seconds, nanoseconds; };
int __vdso_clock_gettime(int clock, struct timespec *time) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(228L), "D"((long)clock), "S"(time)
                   : "rcx", "r11", "memory");
  if (result == 0 && (clock == 0 || clock == 5)) time->seconds += AHEAD;
  return (int)result;
}
int __vdso_getcpu(unsigned *cpu, unsigned *node, void *unused) {
  long result;
  register void *third __asm__("rdx") = unused;
  __asm__ volatile("syscall" : "=a"(result) : "a"(309L), "D"(cpu), "S"(node), "r"(third)
                   : "rcx", "r11", "memory");
  return (int)result;
}
"#;

const VDSO_LAYOUT: &str = r"
VERSION { LINUX_2.6 { global: __vdso_*; local: *; }; }
PHDRS { text PT_LOAD FLAGS(5) FILEHDR PHDRS; dynamic PT_DYNAMIC FLAGS(4); }
SECTIONS {
  . = SIZEOF_HEADERS;
  .hash : { *(.hash) } :text
  .gnu.hash : { *(.gnu.hash) }
  .dynsym : { *(.dynsym) }
  .dynstr : { *(.dynstr) }
  .gnu.version : { *(.gnu.version) }
  .gnu.version_d : { *(.gnu.version_d) }
  .dynamic : { *(.dynamic) } :text :dynamic
  .text : { *(.text*) } :text
  /DISCARD/ : { *(.eh_frame*) *(.note*) *(.comment) *(.got*) *(.data*) *(.bss*) }
}
";

const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
unsigned long getauxval(unsigned long type) {
  unsigned long (*real)(unsigned long) = dlsym(RTLD_NEXT, "getauxval");
  if (type != 33) return real(type); /* AT_SYSINFO_EHDR */
  static void *image;
  if (!image) {
    int fd = open(IMAGE, O_RDONLY | O_CLOEXEC);
    image = mmap(0, 65536, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    close(fd);
  }
  return (unsigned long)image;
}
int clock_gettime(clockid_t clock, struct timespec *time) {
  int result = syscall(SYS_clock_gettime, clock, time);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    time->tv_sec += AHEAD;
  return result;
}
"#;

/// Makes a library in `dir`, to be loaded before others, whose wall clock is `seconds` ahead.
pub fn ahead(dir: &Path, seconds: i64) -> PathBuf {
    let path = |name: &str| dir.join(name);
    for (name, text) in [("vdso.c", VDSO), ("vdso.lds", VDSO_LAYOUT), ("clock.c", LIBRARY)] {
        fs::write(path(name), text).unwrap();
    }
    let ahead = format!("-DAHEAD={seconds}");
    let layout = format!("-Wl,-T,{}", path("vdso.lds").display());
    let bare = ["-nostdlib", "-fno-asynchronous-unwind-tables", "-fcf-protection=none"];
    let plain = ["-Wl,--hash-style=both", "-Wl,--build-id=none", "-Wl,-z,norelro"];
    let image = path("vdso.so");
    compile(&[&ahead, &layout], &[&bare[..], &plain].concat(), &path("vdso.c"), &image);
    let library = path("clock.so");
    let image = format!("-DIMAGE=\"{}\"", image.display());
    compile(&[&ahead, &image], &[], &path("clock.c"), &library);
    library
}

/// Makes a library of a C file.
pub fn compile(first: &[&str], more: &[&str], from: &Path, to: &Path) {
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1"]).args(first).args(more).arg(from).arg("-o").arg(to);
    let output = cc.output().unwrap();
    assert!(output.status.success(), "{cc:?}: {output:?}");
}
