//! The samples of one host as JSON, fast: what stands between two numbers is made once for each
//! segment, and a sample is then those texts and its numbers in turns. A source needs no code here,
//! only its shape. The tests hold every byte of it to what serde writes.

use super::json_text::{Buffer, Style, hundredths, integer, push_timestamp, string, thousandths};
use super::names::Names;
use super::rings::Record;
use super::sample::SampleView;
use crate::record::{BlockView, Common, FLAG_AT_STOP, FLAG_EXTRA, RecordView, RowHead};
use crate::schema::{Field, Kind, Schema, Shape, SourceSchema};
use std::io;

/// Writes samples of one host, one after the other.
pub(super) struct SampleWriter {
    style: Style,
    /// How deep a sample lies.
    depth: usize,
    /// The texts of the segment of the last record.
    segment: Option<(usize, Texts)>,
}

impl SampleWriter {
    /// Writes samples that lie `depth` levels deep.
    pub fn new(style: Style, depth: usize) -> SampleWriter {
        SampleWriter { style, depth, segment: None }
    }

    /// Writes one sample.
    ///
    /// # Errors
    /// Those of what the text goes to.
    pub fn write(&mut self, out: &mut Buffer<'_>, record: Record<'_>) -> io::Result<()> {
        let (style, depth, number) = (self.style, self.depth, record.segment);
        let schema = &record.description.schema;
        let sample = SampleView::new(record);
        let texts = match &mut self.segment {
            Some((of, texts)) if *of == number => texts,
            place => {
                let texts = Texts::new(style, depth, sample.hostname, schema)?;
                &mut place.insert((number, texts)).1
            }
        };
        texts.sample(out, &sample)
    }
}

/// The texts of the samples of one segment.
struct Texts {
    /// From the begin of a sample to its time.
    begin: Vec<u8>,
    /// From there to the first source, with the hostname.
    hostname: Vec<u8>,
    sources: Vec<SourceTexts>,
    /// Before the first error, before each other one, between its source and its sentence, and
    /// behind all.
    errors: [Vec<u8>; 4],
    /// Before each number of [`Collection`](super::timeseries::Collection), and behind all.
    collection: [Vec<u8>; 8],
    /// Before the flags of it, which are all true.
    flags: [Vec<u8>; 2],
    end: Vec<u8>,
}

/// The texts of one source: its values in the published format, and those beyond.
struct SourceTexts {
    published: ValueTexts,
    extra: Option<ValueTexts>,
}

/// The texts of some values of a source.
struct ValueTexts {
    /// From the value before to this one's opening bracket.
    begin: Vec<u8>,
    fields: FieldTexts,
    rows: Option<RowTexts>,
    end: Vec<u8>,
}

/// The texts around a row of a table.
struct RowTexts {
    /// From the list's bracket, or from the row before, to the name of the instance.
    first: Vec<u8>,
    next: Vec<u8>,
    end: Vec<u8>,
    /// A row with fewer columns has none of these values, and is left out.
    least_columns: usize,
}

/// The keys of values, behind each other.
#[derive(Default)]
struct FieldTexts {
    texts: Vec<u8>,
    fields: Vec<FieldText>,
}

struct FieldText {
    /// Where its text ends.
    end: usize,
    /// Which word it is.
    word: usize,
    kind: Kind,
}

impl Texts {
    fn new(style: Style, depth: usize, hostname: &str, schema: &Schema) -> io::Result<Texts> {
        let member = |depth, first, key: &str| member(style, depth, first, key);
        let line = |depth| style.line(depth).into_bytes();
        let mut begin = member(depth + 1, true, "timestamp")?;
        begin.push(b'"');
        let mut host = vec![b'"'];
        host.extend(member(depth + 1, false, "hostname")?);
        string(&mut host, hostname)?;
        let sources = schema.sources.iter().map(|source| SourceTexts::new(style, depth, source));
        let mut errors = member(depth + 1, false, "errors")?;
        errors.push(b'{');
        errors.extend(line(depth + 2));
        let mut tick = member(depth + 1, false, "collection")?;
        tick.extend(member(depth + 2, true, "tick")?);
        let number = |key| member(depth + 2, false, key);
        let flag = |key| {
            let mut text = number(key)?;
            text.extend_from_slice(b"true");
            io::Result::Ok(text)
        };
        let closed = |depth, bracket| [line(depth), vec![bracket]].concat();
        Ok(Texts {
            begin,
            hostname: host,
            sources: sources.collect::<io::Result<_>>()?,
            errors: [
                errors,
                [vec![b','], line(depth + 2)].concat(),
                style.colon().into(),
                closed(depth + 1, b'}'),
            ],
            collection: [
                tick,
                number("time_unix_ns")?,
                number("monotonic_ns")?,
                number("window_us")?,
                number("lateness_us")?,
                number("missed_ticks")?,
                number("cpu_us")?,
                closed(depth + 1, b'}'),
            ],
            flags: [flag("at_stop")?, flag("extra")?],
            end: closed(depth, b'}'),
        })
    }

    fn sample(&self, out: &mut Buffer<'_>, sample: &SampleView<'_>) -> io::Result<()> {
        let text = &mut out.text;
        text.extend_from_slice(&self.begin);
        push_timestamp(text, sample.view.common(Common::WallNs));
        text.extend_from_slice(&self.hostname);
        for block in sample.published() {
            if let Some(source) = self.sources.get(block.index as usize) {
                source.published.write(out, block, &sample.names)?;
            }
        }
        self.errors(&mut out.text, &sample.errors)?;
        self.collection(&mut out.text, &sample.view)?;
        for block in sample.unpublished() {
            if let Some(source) = self.sources.get(block.index as usize) {
                source.published.write(out, block, &sample.names)?;
            }
        }
        for block in sample.all() {
            let source = self.sources.get(block.index as usize);
            if let Some(extra) = source.and_then(|source| source.extra.as_ref()) {
                extra.write(out, block, &sample.names)?;
            }
        }
        out.text.extend_from_slice(&self.end);
        out.settle()
    }

    fn errors(&self, text: &mut Vec<u8>, errors: &[(&str, String)]) -> io::Result<()> {
        let [first, next, between, end] = &self.errors;
        for (index, (source, sentence)) in errors.iter().enumerate() {
            text.extend_from_slice(if index == 0 { first } else { next });
            string(text, source)?;
            text.extend_from_slice(between);
            string(text, sentence)?;
        }
        if !errors.is_empty() {
            text.extend_from_slice(end);
        }
        Ok(())
    }

    /// As [`SampleView::collection`] serialises.
    fn collection(&self, text: &mut Vec<u8>, view: &RecordView<'_>) -> io::Result<()> {
        let common = |which| view.common(which);
        let [tick, time, monotonic, window, lateness, missed, cpu, end] = &self.collection;
        let begin_ns = common(Common::BeginNs);
        text.extend_from_slice(tick);
        integer(text, common(Common::Tick));
        text.extend_from_slice(time);
        integer(text, common(Common::WallNs));
        text.extend_from_slice(monotonic);
        integer(text, begin_ns);
        text.extend_from_slice(window);
        thousandths(text, common(Common::EndNs).saturating_sub(begin_ns))?;
        text.extend_from_slice(lateness);
        thousandths(text, common(Common::LatenessNs))?;
        text.extend_from_slice(missed);
        integer(text, common(Common::MissedTicks));
        text.extend_from_slice(cpu);
        thousandths(text, common(Common::CpuNs))?;
        for (flag, shown) in [FLAG_AT_STOP, FLAG_EXTRA].into_iter().zip(&self.flags) {
            if common(Common::Flags) & flag != 0 {
                text.extend_from_slice(shown);
            }
        }
        text.extend_from_slice(end);
        Ok(())
    }
}

impl SourceTexts {
    fn new(style: Style, depth: usize, source: &SourceSchema) -> io::Result<SourceTexts> {
        let texts = |key: &str, extra| ValueTexts::new(style, depth + 1, key, source, extra);
        let fields = source.shape.as_ref().map_or(&[][..], Shape::fields);
        let has_extra = fields.iter().any(|field| field.extra);
        let extra = has_extra.then(|| texts(&format!("{}_extra", source.name), true));
        Ok(SourceTexts { published: texts(&source.name, false)?, extra: extra.transpose()? })
    }
}

impl ValueTexts {
    /// Of the values that are `extra` or are not, under `key`, so many levels deep.
    fn new(
        style: Style,
        depth: usize,
        key: &str,
        source: &SourceSchema,
        extra: bool,
    ) -> io::Result<ValueTexts> {
        let begin = member(style, depth, false, key)?;
        let line = |depth| style.line(depth);
        match &source.shape {
            Some(Shape::Table { instance_key, columns }) => {
                let to_name = member(style, depth + 2, true, instance_key)?;
                let to_row = [line(depth + 1).as_bytes(), &to_name].concat();
                let first_extra = columns.iter().position(|column| column.extra);
                Ok(ValueTexts {
                    begin,
                    fields: FieldTexts::new(style, depth + 2, columns, extra, false)?,
                    rows: Some(RowTexts {
                        first: [b"[", &to_row[..]].concat(),
                        next: [b",", &to_row[..]].concat(),
                        end: format!("{}}}", line(depth + 1)).into(),
                        least_columns: first_extra.filter(|_| extra).map_or(0, |at| at + 1),
                    }),
                    end: format!("{}]", line(depth)).into(),
                })
            }
            Some(Shape::Scalars { fields }) => Ok(ValueTexts {
                begin,
                fields: FieldTexts::new(style, depth + 1, fields, extra, true)?,
                rows: None,
                end: format!("{}}}", line(depth)).into(),
            }),
            None => {
                Ok(ValueTexts { begin, fields: FieldTexts::default(), rows: None, end: Vec::new() })
            }
        }
    }

    fn write(
        &self,
        out: &mut Buffer<'_>,
        block: &BlockView<'_>,
        names: &Names<'_>,
    ) -> io::Result<()> {
        out.text.extend_from_slice(&self.begin);
        let Some(texts) = &self.rows else {
            if self.fields.fields.is_empty() {
                out.text.extend_from_slice(b"{}");
                return Ok(());
            }
            self.fields.write(&mut out.text, block.data)?;
            out.text.extend_from_slice(&self.end);
            return out.settle();
        };
        let row_words = block.source.shape.as_ref().map_or(1, Shape::row_words);
        let mut before = &texts.first;
        for row in block.data.chunks_exact(row_words) {
            let head = RowHead::from_word(row[0]);
            let present = (row_words - 1).min(head.columns as usize);
            let Some(known) = names.get(block.index, head.entry) else { continue };
            if present < texts.least_columns {
                continue;
            }
            let text = &mut out.text;
            text.extend_from_slice(before);
            text.extend_from_slice(&known.json);
            self.fields.write(text, &row[1..=present])?;
            text.extend_from_slice(&texts.end);
            before = &texts.next;
            // After each: a table may be as large as the largest slot.
            out.settle()?;
        }
        let is_empty = std::ptr::eq(before, &texts.first);
        out.text.extend_from_slice(if is_empty { b"[]" } else { &self.end });
        Ok(())
    }
}

impl FieldTexts {
    /// `opens` if the first of them is the first in its object.
    fn new(
        style: Style,
        depth: usize,
        fields: &[Field],
        extra: bool,
        opens: bool,
    ) -> io::Result<FieldTexts> {
        let mut all = FieldTexts::default();
        for (word, field) in fields.iter().enumerate().filter(|(_, field)| field.extra == extra) {
            let first = opens && all.fields.is_empty();
            all.texts.extend(member(style, depth, first, &field.name)?);
            all.fields.push(FieldText { end: all.texts.len(), word, kind: field.kind });
        }
        Ok(all)
    }

    /// Keys and values, as far as there are words.
    #[inline]
    fn write(&self, text: &mut Vec<u8>, words: &[u64]) -> io::Result<()> {
        let mut begin = 0;
        for field in &self.fields {
            let Some(word) = words.get(field.word) else { break };
            text.extend_from_slice(&self.texts[begin..field.end]);
            begin = field.end;
            match field.kind {
                Kind::Unsigned => integer(text, *word),
                Kind::Signed => integer(text, word.cast_signed()),
                Kind::Hundredths => hundredths(text, *word)?,
            }
        }
        Ok(())
    }
}

/// From the end of the value before to that of `key`, of an object whose members lie `depth` levels
/// deep. Its bracket stands before the first one.
fn member(style: Style, depth: usize, first: bool, key: &str) -> io::Result<Vec<u8>> {
    let mut text = vec![if first { b'{' } else { b',' }];
    text.extend_from_slice(style.line(depth).as_bytes());
    string(&mut text, key)?;
    text.extend_from_slice(style.colon().as_bytes());
    Ok(text)
}
