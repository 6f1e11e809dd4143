//! Every byte of a sample, held to what serde writes.

use super::super::json_sample::SampleWriter;
use super::super::json_text::{Buffer, Style};
use super::super::rings::Rings;
use super::super::timeseries::TimeSeriesData;
use super::super::{Decoder, JSON, JSON_COMPACT};
use super::oracle::Oracle;
use super::{Made, Name, golden, of_each, rings};
use crate::fault::{Fault, Reason};
use crate::record::{COMMON_WORDS, RowHead};
use crate::ring::Ring;
use crate::schema::{Field, Kind, Shape, SourceSchema};
use proptest::prelude::*;
use proptest::sample::select;
use std::io::Write;
use std::path::Path;

const STYLES: [Style; 2] = [Style::Indented, Style::Compact];

/// All samples as they are written, three levels deep.
fn written(rings: &Rings, style: Style) -> Vec<String> {
    let mut writer = SampleWriter::new(style, 3);
    of_each(rings, |record| {
        let mut text = Vec::new();
        let mut out = Buffer::new(&mut text);
        writer.write(&mut out, record).unwrap();
        out.flush().unwrap();
        String::from_utf8(text).unwrap()
    })
}

/// All samples as serde writes them in a list of lists of lists.
fn by_serde(rings: &Rings, style: Style) -> Vec<String> {
    of_each(rings, |record| {
        let nested = [[[Oracle::new(record)]]];
        let (text, before, behind) = match style {
            Style::Compact => (serde_json::to_string(&nested), "[[[", "]]]"),
            Style::Indented => {
                (serde_json::to_string_pretty(&nested), "[\n  [\n    [\n      ", "\n    ]\n  ]\n]")
            }
        };
        let text = text.unwrap();
        text.strip_prefix(before).unwrap().strip_suffix(behind).unwrap().to_owned()
    })
}

fn field(name: &str, kind: Kind, extra: bool) -> Field {
    Field { extra, ..Field::new(name, kind) }
}

fn source(name: &str, shape: Option<Shape>) -> SourceSchema {
    SourceSchema { name: name.to_owned(), path: format!("/proc/{name}"), shape }
}

fn row(entry: u32, columns: u32, words: &[u64]) -> Vec<u64> {
    [&[RowHead { entry, columns }.to_word()], words].concat()
}

/// Everything that a sample can have, and can lack.
fn everything() -> Rings {
    let number = |name| field(name, Kind::Unsigned, false);
    let beyond = |name| field(name, Kind::Signed, true);
    let table = |columns: &[Field]| {
        let instance_key = "device_name".to_owned();
        Some(Shape::Table { instance_key, columns: columns.to_vec() })
    };
    let scalars = |fields: &[Field]| Some(Shape::Scalars { fields: fields.to_vec() });
    let loads = [field("load_1min", Kind::Hundredths, false), number("total_processes")];
    let sources = vec![
        source("pressure", scalars(&[number("some"), beyond("full")])),
        source("netdev", table(&[number("rx"), number("tx"), beyond("later")])),
        source("vmstat", scalars(&[field("free", Kind::Signed, false), number("a \"b\"\\\n")])),
        source("diskstats", table(&[number("reads"), number("writes"), number("discards")])),
        source("loadavg", scalars(&loads)),
        source("meminfo", None),
        source("all_beyond", scalars(&[beyond("x")])),
        source("paths", table(&[beyond("y")])),
    ];
    let names: [Name; 4] = [
        (3, 0x0000_0008_0000_0000, b"sda".to_vec()),
        (3, 0x0000_0008_0000_0001, b"not \xff utf-8 \"\x01".to_vec()),
        (1, 0, "größe:1".into()),
        (7, 0, b"".to_vec()),
    ];
    let nothing = (0, 0, vec![]);
    let refused = Fault::Open(13).to_word();
    let broken = Fault::at(Reason::NotANumber, 7).to_word();
    let full = Made {
        common: [3, 1_767_323_045_999_999_999, 10_500, 12_345, 1, u64::MAX, 1_234_567_891, 0],
        blocks: vec![
            (0, 2, vec![5, (-6_i64) as u64]),
            // One with all columns, one without the last, one whose name is not known.
            (
                0,
                3,
                [row(2, 3, &[1, 2, u64::MAX]), row(2, 2, &[3, 4, 9]), row(9, 3, &[5, 6, 7])]
                    .concat(),
            ),
            (0, 2, vec![i64::MIN as u64, u64::MAX]),
            (broken, 2, [row(0, 3, &[1, 20, 300]), row(1, 1, &[u64::MAX, 5, 6])].concat()),
            (0, 2, vec![52, 7]),
            (refused, 0, vec![]),
            (0, 1, vec![1 << 63]),
            (0, 2, [row(3, 1, &[1]), row(3, 0, &[2])].concat()),
        ],
    };
    let empty = Made {
        common: [4, 0, 20, 10, 0, 0, 0, 3],
        blocks: [nothing.clone(), (0xff, 0, vec![])].into_iter().chain(vec![nothing; 6]).collect(),
    };
    let nameless = Made { common: [5, 1, 2, 3, 4, 5, 6, 2], blocks: full.blocks.clone() };
    rings("a \"host\"", sources, &names, &[full, empty, nameless])
}

#[test]
fn a_captured_ring_is_written_as_serde_writes_it() {
    for style in STYLES {
        let texts = written(&golden(), style);
        assert_eq!(texts.len(), 4);
        assert_eq!(texts, by_serde(&golden(), style));
    }
}

#[test]
fn all_that_a_sample_can_have_and_lack_is_written_as_serde_writes_it() {
    for style in STYLES {
        assert_eq!(written(&everything(), style), by_serde(&everything(), style));
    }
    let [full, empty, _] = &written(&everything(), Style::Compact)[..] else { panic!() };
    assert_eq!(
        full,
        r#"{"timestamp":"2026-01-02T03:04:05Z","hostname":"a \"host\"","diskstats":[{"device_name":"sda","reads":1,"writes":20,"discards":300},{"device_name":"not \\xff utf-8 \"\u0001","reads":18446744073709551615}],"vmstat":{"free":-9223372036854775808,"a \"b\"\\\n":18446744073709551615},"loadavg":{"load_1min":0.52,"total_processes":7},"netdev":[{"device_name":"größe:1","rx":1,"tx":2},{"device_name":"größe:1","rx":3,"tx":4}],"errors":{"diskstats":"cannot parse /proc/diskstats, line 7: a number was expected","meminfo":"cannot open /proc/meminfo: Permission denied (os error 13)","netdev":"1 rows are left out: their names are not in the ring"},"collection":{"tick":3,"time_unix_ns":1767323045999999999,"monotonic_ns":10500,"window_us":1.845,"lateness_us":0.001,"missed_ticks":18446744073709551615,"cpu_us":1234567.891},"pressure":{"some":5},"all_beyond":{},"paths":[{"device_name":""},{"device_name":""}],"netdev_extra":[{"device_name":"größe:1","later":-1}],"pressure_extra":{"full":-6},"all_beyond_extra":{"x":-9223372036854775808},"paths_extra":[{"device_name":"","y":1}]}"#
    );
    assert_eq!(
        empty,
        r#"{"timestamp":"1970-01-01T00:00:00Z","hostname":"a \"host\"","diskstats":[],"errors":{"netdev":"unknown error 0xff"},"collection":{"tick":4,"time_unix_ns":0,"monotonic_ns":20,"window_us":0.0,"lateness_us":0.0,"missed_ticks":0,"cpu_us":0.0,"at_stop":true,"extra":true},"paths":[],"paths_extra":[]}"#
    );
}

/// The types of the format, read from a file and written again, are the file.
#[test]
fn the_types_write_the_file_that_they_were_read_from() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.ring");
    let decoder = Decoder::new(vec![Ring::open(&path).unwrap()]).unwrap();
    let text = |format| {
        let mut text = Vec::new();
        decoder.as_cluster().write(format, &mut text, &mut |_, _| {}).unwrap();
        String::from_utf8(text).unwrap()
    };
    let data: TimeSeriesData = serde_json::from_str(&text(&JSON)).unwrap();
    assert_eq!(serde_json::to_string_pretty(&data).unwrap(), text(&JSON));
    assert_eq!(serde_json::to_string(&data).unwrap(), text(&JSON_COMPACT));
    assert_eq!(decoder.as_cluster().data().unwrap(), data);
}

/// A word that is likely to matter.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..200_u64,
        (0..64_u32, any::<u64>()).prop_map(|(bits, all)| all >> bits)
    ]
}

fn shape() -> impl Strategy<Value = Option<Shape>> {
    let kind = select(vec![Kind::Unsigned, Kind::Signed, Kind::Hundredths]);
    let fields = prop::collection::vec((".{0,8}", kind, prop::bool::weighted(0.2)), 0..6);
    (0..5, fields).prop_map(|(which, fields)| {
        // No two have the same name.
        let fields: Vec<Field> = (0..)
            .zip(fields)
            .map(|(at, (name, kind, extra)): (u32, _)| field(&format!("{name}{at}"), kind, extra))
            .collect();
        match which {
            0 => None,
            1 | 2 => Some(Shape::Scalars { fields }),
            _ => Some(Shape::Table { instance_key: "key".to_owned(), columns: fields }),
        }
    })
}

/// A block of this shape.
fn block(shape: Option<Shape>) -> BoxedStrategy<(u64, usize, Vec<u64>)> {
    let fault = prop_oneof![4 => Just(0), 1 => 0..0x1_0000_0000_u64, 1 => any::<u64>()];
    let data = match shape {
        None => Just((0, vec![])).boxed(),
        Some(Shape::Scalars { fields }) => {
            let count = fields.len();
            let full = prop::collection::vec(word(), count).prop_map(move |words| (count, words));
            prop_oneof![1 => Just((0, vec![])), 4 => full].boxed()
        }
        Some(Shape::Table { columns, .. }) => {
            let width = columns.len();
            let words = prop::collection::vec(word(), width);
            // Some have columns too many, or a name that is not there.
            let row = (0..9_u32, 0..width as u32 + 2, words)
                .prop_map(|(entry, columns, words)| row(entry, columns, &words));
            let rows = prop::collection::vec(row, 0..5);
            rows.prop_map(|rows| (rows.len(), rows.concat())).boxed()
        }
    };
    (fault, data).prop_map(|(fault, (count, words))| (fault, count, words)).boxed()
}

/// Sources of the format and beyond, in any order.
fn sources() -> impl Strategy<Value = Vec<SourceSchema>> {
    let names = ["stat", "netdev", "vmstat", "pressure", "diskstats", "loadavg", "meminfo"];
    let some = prop::sample::subsequence(names.to_vec(), 0..=names.len()).prop_shuffle();
    some.prop_flat_map(|names| {
        let shapes = prop::collection::vec(shape(), names.len());
        shapes.prop_map(move |shapes| {
            names.iter().zip(shapes).map(|(name, shape)| source(name, shape)).collect()
        })
    })
}

fn records(sources: &[SourceSchema]) -> impl Strategy<Value = Vec<Made>> + use<> {
    let blocks: Vec<_> = sources.iter().map(|source| block(source.shape.clone())).collect();
    let common = prop::array::uniform::<_, COMMON_WORDS>(word());
    let made = (common, blocks).prop_map(|(common, blocks)| Made { common, blocks });
    prop::collection::vec(made, 1..4)
}

proptest! {
    #[test]
    fn whatever_is_in_a_ring_is_written_as_serde_writes_it(
        hostname: String,
        names in prop::collection::vec(
            (0..7_u32, any::<u64>(), prop::collection::vec(any::<u8>(), 0..12)), 0..8,
        ),
        (sources, records) in sources().prop_flat_map(|sources| {
            let records = records(&sources);
            (Just(sources), records)
        }),
    ) {
        let count = records.len();
        let rings = rings(&hostname, sources, &names, &records);
        for style in STYLES {
            let texts = written(&rings, style);
            prop_assert_eq!(texts.len(), count);
            prop_assert_eq!(texts, by_serde(&rings, style));
        }
    }
}
