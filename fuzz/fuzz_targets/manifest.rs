//! Any text as the manifest of a run that died, or any two, parted by a zero byte: one beside the
//! ring, one beside its mirror. Then the run is recovered.
//!
//! Beyond "no panic": a manifest that is taken is written and read back as it was; files appear in
//! the results directory alone, under names of their form; nothing else changes or goes but the
//! run's own rings and manifests and the one key of the metadata file that is named; and the rings
//! go only when there is a time series of this run.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringstat::{FinalFiles, FoundRun, Located, Manifest, Store};
use ringstat_fuzz::json::Members;
use ringstat_fuzz::world::{Files, RUN, World};
use serde_json::value::RawValue;
use std::path::Path;

fuzz_target!(|data: &[u8]| {
    let mut texts = data.splitn(2, |byte| *byte == 0);
    let world = World::new();
    let mut said = Vec::new();
    for (dir, text) in world.run_dirs().iter().zip(&mut texts) {
        said.extend(world.put_manifest(dir, text));
    }
    let before = world.files();
    let [rings, _] = world.run_dirs();
    let found = Store::default().locate(&rings.to_string_lossy());
    let Ok(Located::Run(run)) = found else { panic!("a run's directory is not found") };
    check_found(&run, &world);
    // Without a manifest it would go to the current directory.
    let elsewhere = world.path().join("elsewhere");
    let results_dir = run.manifest.is_none().then_some(elsewhere.as_path());
    let results_dir = results_dir.or(data.len().is_multiple_of(7).then_some(&elsewhere));
    let recovered = run.recover(results_dir, &mut |_, _| {});
    let after = world.files();
    // Which of the two manifests counts is seen only when both directories are locked.
    let mut dirs: Vec<&Path> = said.iter().map(|manifest| manifest.results_dir.as_path()).collect();
    if let Some(dir) = results_dir {
        dirs = vec![dir];
    }
    check_files(&said, &before, &after, &dirs, &world);
    match recovered {
        Ok(files) => check_recovered(files, &run, &said, (&before, &after)),
        // The one that says where the files are may be new.
        Err(_) => {
            let kept = |path: &&std::path::PathBuf| path.extension().is_some_and(|e| e == "ring");
            for path in before.keys().filter(kept) {
                assert_eq!(before.get(path), after.get(path), "{} after a failure", path.display());
            }
        }
    }
});

fn check_found(run: &FoundRun, world: &World) {
    assert!(run.distrust().is_none());
    for dir in &run.dirs {
        assert!(dir.starts_with(world.path()) && dir.ends_with(RUN), "{}", dir.display());
    }
    if let Some(manifest) = &run.manifest {
        assert_eq!(manifest.run_id.to_string(), RUN);
        for datetime in manifest.final_datetime.iter().chain([&manifest.datetime]) {
            assert!(is_datetime(datetime), "{datetime:?}");
        }
    }
}

fn is_datetime(text: &str) -> bool {
    let digits =
        |part: &str, count| part.len() == count && part.bytes().all(|b| b.is_ascii_digit());
    text.split_once('_').is_some_and(|(date, time)| digits(date, 8) && digits(time, 6))
}

/// `{benchmark_type}_{datetime}_{what}.json`.
fn is_final_name(name: &str, kind: &str) -> bool {
    let stem = name.strip_suffix("_timeseries.json").or(name.strip_suffix("_metadata.json"));
    let datetime = stem.and_then(|stem| stem.strip_prefix(kind)?.strip_prefix('_'));
    // One that is counted on from the last second of the year 9999 has a longer year.
    datetime.is_some_and(|text| is_datetime(text) || text.starts_with("+1000001"))
}

fn check_files(said: &[Manifest], before: &Files, after: &Files, dirs: &[&Path], world: &World) {
    let kinds = said.iter().map(|manifest| manifest.benchmark_type.as_str());
    // What the ring says, if there is no manifest.
    let kinds: Vec<&str> = kinds.chain(["training"]).collect();
    let is_merged =
        |path: &Path| said.iter().any(|manifest| manifest.merge_metadata.as_deref() == Some(path));
    // An earlier attempt may have left its temporary files there.
    let is_where_it_was_to_go = |place: &Path| {
        said.iter().any(|manifest| {
            let merged = manifest.merge_metadata.as_deref().and_then(Path::parent);
            manifest.results_dir == place || merged == Some(place)
        })
    };
    let own = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_ours = name.ends_with(".ring") || name.starts_with("run.json");
        let is_left = name.starts_with(&format!(".ringstat-{RUN}-"));
        let place = path.parent().expect("in a directory");
        (is_ours && world.run_dirs().iter().any(|dir| dir == place))
            || (is_left && (dirs.contains(&place) || is_where_it_was_to_go(place)))
    };
    for (path, bytes) in before.iter().filter(|(path, _)| !own(path)) {
        let shown = path.strip_prefix(world.path()).expect("in the world").display();
        match after.get(path) {
            Some(now) if now == bytes => {}
            Some(now) if is_merged(path) => {
                assert_eq!(others(bytes), others(now), "{shown}, merged");
            }
            Some(_) => panic!("{shown} was changed"),
            None => panic!("{shown} is gone"),
        }
    }
    for path in after.keys().filter(|path| !before.contains_key(*path)) {
        let shown = path.strip_prefix(world.path()).expect("in the world").display();
        // Renewed beside a ring where there was none, before it goes.
        if own(path) {
            continue;
        }
        let place = path.parent().expect("in a directory");
        assert!(dirs.contains(&place), "{shown} is new, and not among the results");
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        assert!(kinds.iter().any(|kind| is_final_name(&name, kind)), "{shown} is new");
    }
}

/// All members but the reference.
fn others(text: &[u8]) -> Option<Vec<(String, String)>> {
    let Members(members) = serde_json::from_slice(text).ok()?;
    let other = |(key, value): (String, Box<RawValue>)| {
        (key != "timeseries_data").then(|| (key, value.get().to_owned()))
    };
    Some(members.into_iter().filter_map(other).collect())
}

fn check_recovered(
    files: Option<FinalFiles>,
    run: &FoundRun,
    said: &[Manifest],
    (before, after): (&Files, &Files),
) {
    let Some(files) = files else {
        let is_done = said.iter().any(|manifest| manifest.done);
        assert!(is_done, "a run with a sample owes its files");
        assert!(before == after, "a run that owes nothing is left as it is");
        return;
    };
    let path = files.timeseries.expect("three samples were taken");
    let bytes = after.get(&path).expect("what is named is there");
    let is_of_run = bytes.windows(RUN.len()).any(|bytes| bytes == RUN.as_bytes());
    assert!(is_of_run, "{} is of another run", path.display());
    serde_json::from_slice::<serde_json::Value>(bytes).expect("JSON");
    let metadata = files.metadata.expect("a reference to it");
    assert!(after.contains_key(&metadata), "{} is not there", metadata.display());
    for dir in &run.dirs {
        assert!(!after.contains_key(&dir.join("00000.ring")), "{} stays", dir.display());
    }
}
