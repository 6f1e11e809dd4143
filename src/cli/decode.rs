//! `ringstat decode`: rings to files or to standard output.

use super::args::{DecodeArgs, Places};
use super::term::{self, Progress, Volume};
use super::{FAILED, USAGE};
use ringstat::ring::Ring;
use ringstat::{
    DecodeError, Decoder, Format, LocateError, Located, Manifest, Store, write_decoded,
};
use std::io::{self, Write};
use std::path::Path;

/// The rings of one run, and what is known of it.
pub struct Group {
    pub rings: Vec<Ring>,
    pub manifest: Option<Manifest>,
}

pub fn main(args: &DecodeArgs) -> u8 {
    let groups = match gather(&args.rings, &args.places, dir_of(&args.output)) {
        Ok(groups) => groups,
        Err(error) => {
            term::error(error);
            return FAILED;
        }
    };
    if args.output == "-" && groups.len() > 1 {
        term::error("standard output takes one run; name one, or a directory with -o");
        return USAGE;
    }
    let mut status = 0;
    for group in groups {
        if let Err(error) = decode(args, group) {
            term::error(error);
            status = FAILED;
        }
    }
    status
}

/// What can go wrong on the way to the rings.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    #[error(transparent)]
    Locate(#[from] LocateError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Where the output goes; `None` for standard output.
fn dir_of(output: &str) -> Option<&Path> {
    (output != "-").then_some(Path::new(output))
}

/// Opens what the user has named, run by run; what is being written is copied to a file in `copy_dir`.
pub fn gather(
    names: &[String],
    places: &Places,
    copy_dir: Option<&Path>,
) -> Result<Vec<Group>, GatherError> {
    let store = store(places);
    let mut groups: Vec<Group> = Vec::new();
    for name in names {
        let located = store.locate(name)?;
        let manifest = located.manifest();
        if let Located::Run(run) = &located {
            run.unreadable_rings().iter().chain(&run.cut_off_rings()).for_each(term::warn);
        }
        for ring in located.rings_by(copy_dir)? {
            let run_id = ring.header().run_id;
            let group = groups.iter_mut().find(|group| {
                group.rings.first().is_some_and(|first| first.header().run_id == run_id)
            });
            match group {
                Some(group) => group.rings.push(ring),
                None => {
                    let manifest = manifest.clone().filter(|manifest| manifest.run_id == run_id);
                    groups.push(Group { rings: vec![ring], manifest });
                }
            }
        }
    }
    Ok(groups)
}

/// Where runs are, the user's own places included.
pub fn store(places: &Places) -> Store {
    Store::default().with(places.ring_dir.iter().chain(&places.mirror_dir).cloned())
}

fn decode(args: &DecodeArgs, group: Group) -> Result<(), Box<dyn std::error::Error>> {
    let mut decoder = Decoder::new(group.rings)?;
    let volume = Volume::Normal;
    let mut progress = Progress::new("writing samples", volume);
    let mut advance = |done, total| progress.set(done, total);
    if args.output == "-" {
        return to_stdout(&mut decoder, args.format, &mut advance).map_err(Into::into);
    }
    let change = |manifest: &mut Manifest| {
        manifest.format = args.format.name.to_owned();
        manifest.merge_metadata.clone_from(&args.merge_metadata);
    };
    let dir = Path::new(&args.output);
    let files = write_decoded(&mut decoder, group.manifest, dir, change, &mut advance)?;
    drop(progress);
    volume.files(&files);
    Ok(())
}

fn to_stdout(
    decoder: &mut Decoder,
    format: &Format,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), DecodeError> {
    let mut out = io::stdout().lock();
    let result = decoder.write(format, &mut out, progress).and_then(|written| {
        writeln!(out).and_then(|()| out.flush()).map_err(DecodeError::Write)?;
        written.warnings().iter().for_each(term::warn);
        Ok(())
    });
    match result {
        // Whoever read it has seen enough.
        Err(DecodeError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
