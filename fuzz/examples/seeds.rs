//! Writes the seed corpus, `seeds/`: `cargo run --example seeds` in `fuzz/`. The files are
//! committed; this is where they come from.

use ringstat::fuzzing::{FileEntry, GUEST, Reply, Request, VERSION, put_chunk, put_control};
use ringstat::ring::Ring;
use ringstat::{Decoder, JSON, JSON_COMPACT};
use ringstat_fuzz::rings::{TEXTS, ring, segment};
use ringstat_fuzz::world::{OTHER, RUN};
use std::fs;
use std::path::Path;

/// Parts the two texts of a `proc_text` seed; no text has it.
const SEPARATOR: u8 = b'~';

const MIXED_DISKSTATS: &str = include_str!("../../tests/proc/mixed/diskstats");

fn main() -> std::io::Result<()> {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let dir = seeds.join(target);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(name), bytes)
    };
    for (number, def) in ringstat::source::SOURCES.iter().enumerate() {
        let (name, text) = TEXTS.iter().find(|(name, _)| *name == def.name).expect("a text");
        let two = |first: &str, second: &str, names: u8, words: u8| {
            let head = [number as u8, SEPARATOR, names, words];
            [&head[..], first.as_bytes(), &[SEPARATOR], second.as_bytes()].concat()
        };
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        write("proc_text", &format!("{name}-same"), &two(text, text, 64, 64))?;
        write("proc_text", &format!("{name}-tight"), &two(text, text, 3, 4))?;
        if lines.len() > 4 {
            let fewer = [&lines[..2], &lines[3..]].concat().concat();
            write("proc_text", &format!("{name}-fewer"), &two(text, &fewer, 64, 64))?;
            write("proc_text", &format!("{name}-more"), &two(&fewer, text, 64, 64))?;
        }
        if *name == "diskstats" {
            write("proc_text", "diskstats-other", &two(text, MIXED_DISKSTATS, 64, 64))?;
        }
    }
    let small = [TEXTS[3], ("diskstats", MIXED_DISKSTATS)];
    write("ring_bytes", "small", &ring(&small, 7))?;
    write("ring_bytes", "one-record", &ring(&TEXTS[3..4], 1))?;
    write("ring_bytes", "all", &ring(&TEXTS, 6))?;
    let segments = [segment(&small, 0, 0..5), segment(&small[..1], 1, 5..8)];
    write("ring_bytes", "segments", &segments.concat())?;
    let [mut copy, whole] = [(); 2].map(|()| segment(&small, 0, 0..6));
    let last_slots = copy.len() - 4096;
    copy[last_slots..].fill(0);
    write("ring_bytes", "copies", &[copy, whole, segments[1].clone()].concat())?;
    for (name, text) in [
        ("own", r#"{"benchmark_type":"training","result_dir":"/r","runtime":1.5}"#),
        ("last", "{\n  \"a\": {\"x\":  [1e3, null, \"\\u00e9\\/\"]},\n  \"b\": 1.50\n}\n"),
        ("there", r#"{"timeseries_data": {"file": "f"}, "runtime": 2, "\u0061": true}"#),
        ("twice", r#"{"timeseries_data": 1, "a": 2, "timeseries_data": 3, "a": 4}"#),
    ] {
        write("metadata_merge", name, text.as_bytes())?;
    }
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
    for (name, hosts) in [
        ("plain", "node1,10.0.0.1"),
        ("port", "[node1]:2222"),
        // `printf node1 | openssl dgst -sha1 -mac HMAC` with a salt of 20 times `a`.
        ("hashed", "|1|YWFhYWFhYWFhYWFhYWFhYWFhYWE=|D02Z9xtM3dx4RWNPBlSZQNITvpM="),
        ("pattern", "*.x,!a?,node*"),
        ("revoked", "@revoked *"),
        ("authority", "@cert-authority node1"),
        ("garbage", "@x node1"),
    ] {
        write("known_hosts", name, format!("node1\0# x\r\n{hosts} {key} c\n").as_bytes())?;
    }
    manifests().iter().try_for_each(|(name, text)| write("manifest", name, text.as_bytes()))?;
    for (name, bytes) in conversations() {
        write(if name.starts_with("asks") { "launcher_says" } else { "agent_says" }, name, &bytes)?;
    }
    fronts().iter().try_for_each(|(name, bytes)| write("front", name, bytes))?;
    for (name, ring, format) in [
        ("all", ring(&TEXTS, 6), &JSON),
        ("compact", ring(&TEXTS, 1), &JSON_COMPACT),
        ("small", ring(&TEXTS[3..4], 7), &JSON_COMPACT),
    ] {
        let ring = Ring::new(Box::new(ring), Path::new(name)).expect("a ring");
        let mut decoder = Decoder::new(vec![ring]).expect("a ring's records");
        let mut json = Vec::new();
        decoder.write(format, &mut json, &mut |_, _| {}).expect("memory can be written");
        write("timeseries_json", name, &json)?;
    }
    write("timeseries_json", "metadata", METADATA.as_bytes())?;
    HOSTS.iter().try_for_each(|(name, text)| write("hosts", name, text.as_bytes()))
}

/// Lists and hostfiles as people write them.
const HOSTS: [(&str, &str); 6] = [
    ("list", "a,b:4,user@c,[fe80::1%eth0]:2,node[001-016,020]"),
    ("ports", "ssh://a:2222,ssh://u@[::1]:22,ssh://n[1-2]:1"),
    ("nested", "r[1-2]n[01-03,a[x,y[8-9]]].example,10.0.[0-1].[1-2]"),
    ("file", "# all\r\nhost slots=4\nhost:4 # c\n\n  u@b max_slots = 8\n::1\nc user=u port=2\n"),
    ("wrong", "n[5-3],-oProxyCommand=x,a;b,10.0.0.010,a:4:5"),
    ("many", "n[1-256][1-256]"),
];

const METADATA: &str = r#"{"benchmark_type":"training","command":"run",
"run_datetime":"20260102_030405","result_dir":"/results","system_info":{"hostname":"h","kernel":"6","architecture":"x",
"distribution":"d","cpu_model":"m","cpus":2,"cpus_allowed":2,"memory_total_kb":9},
"timeseries_data":{"file":"f","num_samples":3,"interval_seconds":0.25,"hosts_collected":["h"]},
"runtime":1.5,"executed_command":"fio a","exit_status":3,
"ringstat":{"version":"0.1.0","run_id":"x","recovered":true,"warnings":["w"]}}"#;

/// Manifests as a recorder writes them, and such as want something else.
fn manifests() -> Vec<(&'static str, String)> {
    let with = |run: &str, results: &str, rest: &str| {
        format!(
            r#"{{"version":1,"run_id":"{run}","benchmark_type":"training","mode":"run",
"command":["fio","a b"],"results_dir":"{results}","format":"json","datetime":"20260102_030405",
"hostname":"h","pid":7,"warnings":["w"]{rest}}}"#
        )
    };
    let dirs = format!(r#","ring_dir":"/rings/{RUN}","mirror_dir":"/mirrors/{RUN}""#);
    let ended = r#","ended":{"runtime_seconds":1.5,"exit_status":3}"#;
    let final_ = r#","final_datetime":"20260102_030406""#;
    let both = [with(RUN, "/results", &dirs), with(RUN, "/new", &format!("{ended}{final_}"))];
    vec![
        ("plain", with(RUN, "/results", &dirs)),
        ("ended", with(RUN, "/new/deep", &format!("{dirs}{ended}"))),
        ("written", with(RUN, "/results", &format!("{dirs}{ended}{final_}"))),
        ("done", with(RUN, "/results", &format!(r#"{dirs},"done":true"#))),
        ("merge", with(RUN, "/results", r#","merge_metadata":"/results/own.json""#)),
        ("merge-manifest", {
            with(RUN, "/results", &format!(r#","merge_metadata":"/rings/{OTHER}/run.json""#))
        }),
        ("two", both.join("\0")),
        ("into-its-ring", with(RUN, &format!("/rings/{RUN}"), &dirs)),
        ("into-another", with(RUN, &format!("/rings/{OTHER}"), "")),
        ("dirs-of-another", {
            with(RUN, "/results", &format!(r#","ring_dir":"/rings/{OTHER}","mirror_dir":"/""#))
        }),
        ("of-another", with(OTHER, "/results", &dirs)),
        ("up", with(RUN, "../../results/../..", r#","ring_dir":"..""#)),
        ("late", with(RUN, "/r", "").replace("20260102_030405", "99991231_235959")),
        ("long-year", with(RUN, "/r", "").replace("20260102_030405", "+262142 12 31_23 59 59")),
    ]
}

/// Whole runs as a front sees them, and such as go wrong; see its target.
fn fronts() -> Vec<(&'static str, Vec<u8>)> {
    let place = |run| format!(r#"{{"run_id":"{run}","ring_base":null,"mirror_base":null}}"#);
    let attach = |run| format!(r#"{{"attach":{}}}"#, place(run));
    let look = |run, user| format!(r#"{{"look":{{"place":{},"user":"{user}"}}}}"#, place(run));
    let prepare = r#"{"prepare":{"interval":{"secs":1,"nanos":0},"max_samples":9,"sync_interval":
{"secs":30,"nanos":0},"sources":["diskstats"],"benchmark_type":"training","command":["fio"],"policy":
"other","nice":null,"cpu":"auto","procfs":"/proc","mirror":true,"orphan_timeout":{"secs":9,"nanos":0},
"max_duration":null,"launcher":"l"}}"#;
    let prepare = prepare.replace('\n', "");
    let [ping, beat] = [false, true].map(|beat| format!(r#"{{"ping":{{"id":1,"beat":{beat}}}}}"#));
    let go = r#"{"go":{"start_monotonic_ns":9}}"#;
    let fetch = |file, from| format!(r#"{{"fetch":{{"file":{file},"from":{from}}}}}"#);
    let of = |flags: u8, answers: &[u8], damage: &[[u8; 3]], asked: &[&str]| {
        let head = [&[flags, answers.len() as u8], answers, &[damage.len() as u8]].concat();
        [&head[..], damage.as_flattened(), asked.join("\n").as_bytes()].concat()
    };
    let [list, stop, discard, bye] = [r#""list""#, r#""stop""#, r#""discard""#, r#""bye""#];
    let none = "01900000-0000-7000-8000-000000000003";
    let [run, other, new] = [RUN, OTHER, none].map(attach);
    let [seen, strange, unknown] =
        [(OTHER, GUEST), (RUN, "x"), (none, GUEST)].map(|(run, user)| look(run, user));
    let [ring, mirror, rest] = [(0, 0), (1, 0), (0, 1 << 18)].map(|(file, from)| fetch(file, from));
    let fetched = [list, &ring, &mirror, &rest, discard, list, bye];
    let whole = [&[&*run, &ping, &beat, go, stop][..], &fetched].concat();
    let new = [&*new, &unknown, &prepare, go, stop, &prepare, discard, bye];
    vec![
        ("records", of(1, &[7; 20], &[], &whole)),
        ("has-ended", of(0, &[], &[], &whole)),
        ("second-segment", of(16, &[], &[], &whole)),
        ("cut-off", of(8, &[], &[], &whole)),
        ("damaged", of(0, &[], &[[0, 16, 1], [9, 0, 255], [64, 31, 3]], &whole)),
        ("mirror-alone", of(4, &[], &[], &whole)),
        ("nothing", of(6, &[], &[], &whole)),
        ("new", of(0, &[], &[], &new)),
        ("answers-anything", of(1, &[1, 0, 2, 3, 4, 5, 6], &[], &whole)),
        ("looks", of(1, &[7; 9], &[], &[&strange, &seen, &other, discard])),
        ("lives", of(1, &[7; 9], &[], &[&run, &prepare, list, &ring])),
        ("no-run", of(0, &[], &[], &[stop, list, go, discard, &beat, "?"])),
    ]
}

/// What agents and launchers say, frame by frame.
fn conversations() -> Vec<(&'static str, Vec<u8>)> {
    let hello = r#"{"hello":{"version":0,"ringstat":"0.1.0","hostname":"h","machine":{"machine_id":"00000000-0000-0000-0000-000000000000","boot_id":"00000000-0000-0000-0000-000000000001","network":7},"clock_synchronised":true}}"#;
    // One that is of this version is heard to the end.
    let hello = hello.replace("\"version\":0", &format!("\"version\":{VERSION}"));
    let hello: Reply = serde_json::from_str(&hello).expect("a reply");
    let files = |bytes| Reply::Files(vec![FileEntry { segment: 3, is_mirror: true, bytes }]);
    let frames = |replies: &[&Reply]| {
        let mut bytes = Vec::new();
        replies.iter().for_each(|reply| put_control(reply, &mut bytes).expect("a frame"));
        bytes
    };
    let mut whole = frames(&[&hello, &files(64)]);
    put_chunk(0, 0, &[7; 64], &mut whole).expect("a chunk");
    let mut asks = Vec::new();
    let requests = [
        Request::Ping { id: 1, beat: true },
        Request::Go { start_monotonic_ns: 9 },
        Request::Stop,
        Request::List,
        Request::Fetch { file: 0, from: 1 << 18 },
        Request::Discard,
        Request::Bye,
    ];
    requests.iter().for_each(|request| put_control(request, &mut asks).expect("a frame"));
    vec![
        ("nothing", frames(&[&hello, &Reply::Files(Vec::new())])),
        ("large", frames(&[&hello, &files(u64::MAX)])),
        ("failed", frames(&[&hello, &Reply::Failed { what: "no".to_owned() }])),
        ("ring", [whole, frames(&[&Reply::End { file: 0, check: 1, unreadable: 0 }])].concat()),
        ("asks", asks),
    ]
}
