//! Whatever the counters are, they come back as the kernel printed them; whatever the bytes are,
//! nothing panics and nothing is shown that does not stand there.

use super::*;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// The outcome for a text of which nothing is known: all that was read stands there, and if no
/// fault is told, then all that stands there was read.
fn check(
    source: &str,
    text: &[u8],
    outcome: Result<(Parsed, Vec<Row>), Fault>,
) -> Result<(), TestCaseError> {
    let Ok((parsed, rows)) = outcome else { return Ok(()) };
    let expected = naive::read(source, text);
    match parsed {
        Parsed::Values { fault: None, .. } => prop_assert_eq!(rows, expected),
        Parsed::Values { .. } => {
            let mut left = expected.iter();
            for row in &rows {
                prop_assert!(left.any(|known| known == row), "{row:?} is not in {expected:?}");
            }
        }
        Parsed::Nothing(_) => prop_assert!(rows.is_empty()),
        Parsed::Outgrown { .. } | Parsed::Relayout => prop_assert!(false, "{parsed:?}"),
    }
    Ok(())
}

/// The sampler's life: a sound text, one of which nothing is known, and the sound one again.
fn check_between(source: &str, sound: &str, text: &[u8]) -> Result<(), TestCaseError> {
    let mut lab = Lab::new(source, sound).unwrap();
    let expected = lab.values(sound);
    let outcome = lab.sample(text);
    check(source, text, outcome)?;
    let (parsed, rows) = lab.sample(sound).unwrap();
    match parsed {
        // A minus sign in `text` made a column signed, which cannot hold all that it has held.
        Parsed::Values { fault: Some(Fault::Parse { reason, .. }), .. } => {
            prop_assert_eq!(reason, Reason::NumberTooLarge);
            prop_assert!(lab.fields().iter().any(|field| field.kind == Kind::Signed));
            check(source, sound.as_bytes(), Ok((parsed, rows)))?;
        }
        _ => prop_assert_eq!(rows, expected),
    }
    let outcome = Lab::new(source, text).and_then(|mut lab| lab.sample(text));
    check(source, text, outcome)
}

/// One way to spoil a text.
#[derive(Debug, Clone)]
enum Spoil {
    Replace(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Cut(Index),
    RemoveLine(Index),
    RepeatLine(Index, Index),
    SwapLines(Index, Index),
}

fn spoil() -> impl Strategy<Value = Spoil> {
    let at = any::<Index>;
    // Mostly bytes that mean something somewhere.
    let byte = || prop_oneof![4 => select(&b"0123456789 \n\t-:|./kBa"[..]), 1 => any::<u8>()];
    prop_oneof![
        4 => (at(), byte()).prop_map(|(at, byte)| Spoil::Replace(at, byte)),
        4 => (at(), byte()).prop_map(|(at, byte)| Spoil::Insert(at, byte)),
        4 => at().prop_map(Spoil::Remove),
        1 => at().prop_map(Spoil::Cut),
        1 => at().prop_map(Spoil::RemoveLine),
        2 => (at(), at()).prop_map(|(from, to)| Spoil::RepeatLine(from, to)),
        1 => (at(), at()).prop_map(|(a, b)| Spoil::SwapLines(a, b)),
    ]
}

impl Spoil {
    fn apply(&self, text: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        let mut lines: Vec<Vec<u8>> =
            text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let (bytes, count) = (text.len(), lines.len());
        match self {
            Spoil::Replace(at, byte) => return text[at.index(bytes)] = *byte,
            Spoil::Insert(at, byte) => return text.insert(at.index(bytes), *byte),
            Spoil::Remove(at) => {
                text.remove(at.index(bytes));
                return;
            }
            Spoil::Cut(at) => return text.truncate(at.index(bytes)),
            Spoil::RemoveLine(at) => drop(lines.remove(at.index(count))),
            Spoil::RepeatLine(from, to) => {
                lines.insert(to.index(count), lines[from.index(count)].clone());
            }
            Spoil::SwapLines(a, b) => lines.swap(a.index(count), b.index(count)),
        }
        *text = lines.concat();
    }
}

/// Numbers of every length, not only the longest.
fn counter() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), any::<u32>().prop_map(u64::from), 0..1000_u64, Just(u64::MAX)]
}

/// Counters by the names that the kernel printed them with.
fn named(names: &[&str], counters: &[u64]) -> Vec<(String, i128)> {
    names.iter().zip(counters).map(|(name, value)| (name.to_string(), (*value).into())).collect()
}

proptest! {
    #[test]
    fn diskstats_come_back(
        disks in btree_map((0..4096_u32, 0..1 << 20_u32), ("[a-z][a-z0-9!/_-]{0,30}", vec(counter(), 17)), 0..9),
        columns in select(&[11_usize, 15, 17][..]),
    ) {
        let mut text = String::new();
        for ((major, minor), (name, counters)) in &disks {
            text += &format!("{major:4} {minor:7} {name}");
            for counter in &counters[..columns] {
                text += &format!(" {counter}");
            }
            text += "\n";
        }
        let rows = values("diskstats", &text);
        let expected: Vec<(&str, Vec<i128>)> = disks
            .values()
            .map(|(name, counters)| (&name[..], counters[..columns].iter().map(|c| i128::from(*c)).collect()))
            .collect();
        prop_assert_eq!(numbers(&rows), expected);
    }

    #[test]
    fn netdev_comes_back(
        devices in btree_map("[a-z][a-z0-9.:_-]{0,14}", vec(counter(), 16), 0..9),
        old in any::<bool>(),
    ) {
        let mut text: String = lines_of(NETDEV).take(2).collect();
        for (name, c) in &devices {
            // Before 2.6.30, no blank behind the colon but what fills up the number.
            let bytes = if old { format!("{:8}", c[0]) } else { format!(" {:7}", c[0]) };
            text += &format!(
                "{name:>6}:{bytes} {:7} {:4} {:4} {:4} {:5} {:10} {:9} {:8} {:7} {:4} {:4} {:4} {:5} {:7} {:10}\n",
                c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9], c[10], c[11], c[12], c[13], c[14], c[15]
            );
        }
        let rows = values("netdev", &text);
        let expected: Vec<(&str, Vec<i128>)> = devices
            .iter()
            .map(|(name, counters)| (&name[..], counters.iter().map(|c| i128::from(*c)).collect()))
            .collect();
        prop_assert_eq!(numbers(&rows), expected);
    }

    #[test]
    fn vmstat_comes_back(counters in btree_map("[a-z][a-z0-9_]{0,40}", counter(), 1..200)) {
        let text: String = counters.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
        let names: Vec<&str> = counters.keys().map(|name| &name[..]).collect();
        let values_: Vec<u64> = counters.values().copied().collect();
        prop_assert_eq!(&values("vmstat", &text)[0].1, &named(&names, &values_));
    }

    #[test]
    fn meminfo_comes_back(
        counters in btree_map("[A-Z][A-Za-z0-9_()]{0,24}", (counter(), any::<bool>()), 1..60),
    ) {
        let line = |(name, (value, unit)): (&String, &(u64, bool))| {
            format!("{:<16}{value:8}{}\n", format!("{name}:"), if *unit { " kB" } else { "" })
        };
        let text: String = counters.iter().map(line).collect();
        let names: Vec<&str> = counters.keys().map(|name| &name[..]).collect();
        let values_: Vec<u64> = counters.values().map(|(value, _)| *value).collect();
        prop_assert_eq!(&values("meminfo", &text)[0].1, &named(&names, &values_));
    }

    #[test]
    fn loadavg_comes_back(
        loads in proptest::array::uniform3((0..1_u64 << 53, 0..100_u64)),
        running: u32,
        total in 0..=i32::MAX,
        pid in 0..=i32::MAX,
    ) {
        let averages = loads.map(|(whole, hundredths)| format!("{whole}.{hundredths:02}")).join(" ");
        let text = format!("{averages} {running}/{total} {pid}\n");
        let [one, five, fifteen] = loads.map(|(whole, hundredths)| i128::from(whole * 100 + hundredths));
        let expected = vec![one, five, fifteen, running.into(), total.into(), pid.into()];
        let rows = values("loadavg", &text);
        prop_assert_eq!(numbers(&rows), [("", expected)]);
    }

    /// One parser, many texts: what it remembers of one must not show in the next.
    #[test]
    fn devices_in_any_order_keep_their_numbers(
        texts in vec((vec(0..12_u32, 0..12), counter()), 1..12),
    ) {
        let mut lab = Lab::new("diskstats", "").unwrap();
        for (order, base) in texts {
            let line = |disk: &u32| {
                // Two of a name, and names that begin like others.
                let name = ["sda", "sda1", "sda11", "sd"][*disk as usize % 4];
                let counters: String =
                    (0..17).map(|column| format!(" {}", base.wrapping_add(u64::from(disk * 100 + column)))).collect();
                format!("   8 {disk:7} {name}{counters}\n")
            };
            let text: String = order.iter().map(line).collect();
            prop_assert_eq!(lab.values(&text), naive::read("diskstats", text.as_bytes()));
        }
        prop_assert_eq!(lab.probes, 1);
        prop_assert!(lab.names.entries.len() <= 12);
    }

    #[test]
    fn no_bytes_are_taken_for_what_they_are_not(bytes in vec(any::<u8>(), 0..300)) {
        for (source, sound) in MODERN {
            check_between(source, sound, &bytes)?;
        }
    }

    #[test]
    fn a_spoilt_text_shows_only_what_stands_there(
        spoils in vec(spoil(), 1..5),
        which in 0..MODERN.len() + 1,
    ) {
        let (source, sound) = MODERN.get(which).copied().unwrap_or(("diskstats", MIXED_DISKSTATS));
        let mut text = sound.as_bytes().to_vec();
        spoils.iter().for_each(|spoil| spoil.apply(&mut text));
        check_between(source, sound, &text)?;
    }
}
