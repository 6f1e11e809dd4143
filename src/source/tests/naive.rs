//! What a text says, read in the plainest way that there is: a second opinion that shares no code
//! with the parsers, keeps nothing between two texts, and is slow. It passes over a line of a table
//! that it cannot read, and over a whole file of scalars with such a line. A line that lacks its
//! line feed cannot be read.

use super::Row;

/// All that `text` says.
pub(super) fn read(source: &str, text: &[u8]) -> Vec<Row> {
    let lines: Vec<&[u8]> =
        text.split_inclusive(|byte| *byte == b'\n').filter_map(|l| l.strip_suffix(b"\n")).collect();
    let cut = text.last().is_some_and(|byte| *byte != b'\n');
    match source {
        "vmstat" | "meminfo" | "loadavg" if cut => Vec::new(),
        "diskstats" => diskstats(&lines),
        "netdev" => netdev(&lines),
        "vmstat" => scalars(lines.iter().map(|line| name_and_value(line, b' '))),
        "meminfo" => scalars(lines.iter().map(|line| name_and_value(line, b':'))),
        "loadavg" => loadavg(&lines),
        _ => panic!("{source}"),
    }
}

fn blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn words(line: &[u8]) -> Vec<&[u8]> {
    line.split(blank).filter(|word| !word.is_empty()).collect()
}

/// What is not a number of 64 bits is none.
fn number(word: &[u8]) -> Option<i128> {
    let digits = word.strip_prefix(b"-").unwrap_or(word);
    let value: i128 = std::str::from_utf8(word).ok()?.parse().ok()?;
    let sound = digits.iter().all(u8::is_ascii_digit)
        && (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&value);
    sound.then_some(value)
}

fn name(bytes: &[u8]) -> Option<String> {
    let sound = !bytes.is_empty() && bytes.len() <= 96 && !bytes.iter().any(blank);
    sound.then(|| String::from_utf8_lossy(bytes).into_owned())
}

const DISK_COLUMNS: &str = "reads_completed reads_merged sectors_read time_reading_ms \
    writes_completed writes_merged sectors_written time_writing_ms \
    ios_in_progress time_doing_ios_ms weighted_time_doing_ios_ms \
    discards_completed discards_merged sectors_discarded time_discarding_ms \
    flush_requests_completed time_flushing_ms";

fn diskstats(lines: &[&[u8]]) -> Vec<Row> {
    let mut seen = Vec::new();
    let mut rows = Vec::new();
    let row = |line: &[u8]| {
        let words = words(line);
        let major = u32::try_from(number(words.first()?)?).ok()?;
        let minor = u32::try_from(number(words.get(1)?)?).ok()?;
        let disk = name(words.get(2)?)?;
        let values: Vec<i128> = words[3..].iter().map(|w| number(w)).collect::<Option<_>>()?;
        let published = match values.len() {
            0..11 => return None,
            11..15 => 11,
            15..17 => 15,
            more => more,
        };
        let mut columns: Vec<String> = DISK_COLUMNS.split(' ').map(str::to_owned).collect();
        columns.extend((21..).map(|n| format!("column_{n}")).take(published.saturating_sub(17)));
        Some(((major, minor, disk), columns.into_iter().zip(values).take(published).collect()))
    };
    for (key, counters) in lines.iter().filter_map(|line| row(line)) {
        if !seen.contains(&key) {
            rows.push((key.2.clone(), counters));
            seen.push(key);
        }
    }
    rows
}

fn netdev(lines: &[&[u8]]) -> Vec<Row> {
    let [_, header, lines @ ..] = lines else { return Vec::new() };
    let groups: Vec<_> = header.split(|byte| *byte == b'|').collect();
    let mut columns = Vec::new();
    for (direction, group) in ["rx", "tx"].iter().zip(&groups[1..]) {
        for word in words(group) {
            let word = match word {
                b"errs" => "errors".into(),
                b"drop" => "dropped".into(),
                b"colls" => "collisions".into(),
                other => String::from_utf8_lossy(other),
            };
            columns.push(format!("{direction}_{word}"));
        }
    }
    let mut rows: Vec<Row> = Vec::new();
    for line in lines {
        let Some(end) = line.iter().rposition(|byte| *byte == b':') else { continue };
        let begin = line.iter().position(|byte| !blank(byte)).unwrap_or(0);
        let Some(interface) = name(&line[begin.min(end)..end]) else { continue };
        let values: Option<Vec<i128>> = words(&line[end + 1..]).iter().map(|w| number(w)).collect();
        let Some(values) = values else { continue };
        if values.len() == columns.len() && rows.iter().all(|row| row.0 != interface) {
            rows.push((interface, columns.iter().cloned().zip(values).collect()));
        }
    }
    rows
}

fn name_and_value(line: &[u8], separator: u8) -> Option<(String, i128)> {
    let end = line.iter().position(|byte| *byte == separator)?;
    let value = match words(&line[end + 1..])[..] {
        [value] => number(value)?,
        [value, b"kB"] if separator == b':' => number(value)?,
        _ => return None,
    };
    let sound = end > 0 && end <= 96;
    sound.then(|| (String::from_utf8_lossy(&line[..end]).into_owned(), value))
}

fn scalars(counters: impl Iterator<Item = Option<(String, i128)>>) -> Vec<Row> {
    let counters: Option<Vec<_>> = counters.collect();
    let counters = counters.filter(|counters| !counters.is_empty());
    counters.map(|counters| (String::new(), counters)).into_iter().collect()
}

fn loadavg(lines: &[&[u8]]) -> Vec<Row> {
    let values = |line: &[u8]| {
        let line = std::str::from_utf8(line).ok()?.replacen('/', " ", 1);
        let words: Vec<&str> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
        let mut values = Vec::new();
        for (index, word) in words.iter().enumerate() {
            // Hundredths: with two decimals, these are the digits without the point.
            let digits = if index < 3 { word.replacen('.', "", 1) } else { (*word).to_owned() };
            values.push(number(digits.as_bytes())?);
        }
        let mut columns: Vec<String> =
            ["load_1min", "load_5min", "load_15min", "running_processes", "total_processes"]
                .map(str::to_owned)
                .to_vec();
        columns.push("last_pid".to_owned());
        columns.extend((6..).map(|n| format!("column_{n}")).take(words.len().saturating_sub(6)));
        Some(columns.into_iter().zip(values).collect())
    };
    match lines {
        [line] => values(line).map(|values| (String::new(), values)).into_iter().collect(),
        _ => Vec::new(),
    }
}
