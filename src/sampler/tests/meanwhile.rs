//! What the sampler writes while the mirror's copier is between two looks: it is copied at the next.

use super::*;
use crate::ring::{Draft, RingWriter};
use crate::sampler::copier::Copier;
use crate::sampler::disk::{Disk, DiskFile};
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::rc::Rc;

type Act = Box<dyn FnOnce()>;

/// A file in memory; before the next write this is done.
#[derive(Clone)]
struct Meanwhile {
    file: Rc<File>,
    act: Rc<RefCell<Option<Act>>>,
}

impl Disk for Meanwhile {
    type File = Meanwhile;

    fn create(&self, _: &str, bytes: Bytes) -> io::Result<Meanwhile> {
        self.file.set_len(bytes.0)?;
        Ok(self.clone())
    }

    fn remove(&self, name: &str, _: &Meanwhile) {
        panic!("{name} is not to be removed");
    }

    fn damage(&self, _: &str, _: &Meanwhile, _: Bytes) -> Option<(&'static str, bool)> {
        None
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn shown(&self) -> String {
        "memory".to_owned()
    }
}

impl DiskFile for Meanwhile {
    fn write_at(&self, bytes: &[u8], offset: Bytes) -> io::Result<()> {
        let act = self.act.take();
        if let Some(act) = act {
            act();
        }
        self.file.write_at(bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: Bytes) -> io::Result<()> {
        self.file.read_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn extend(&self, bytes: Bytes) -> io::Result<()> {
        self.file.extend(bytes)
    }

    fn punch(&self, _: Bytes, _: Bytes) {}
}

#[test]
fn records_that_are_written_while_their_name_is_copied_are_copied_too() {
    const SLOTS: u64 = 40;
    let original = original(vec![b'd'; 10], SLOTS, SLOTS);
    let ring = Rc::new(RingWriter::new(original.segment.clone()));
    let disk = Meanwhile { file: Rc::new(tempfile::tempfile().unwrap()), act: Rc::default() };
    let mut copier = Copier::new(disk.clone(), SLOTS - 1);
    copier.add(original.downgrade());
    copier.copy();
    for first in (0..SLOTS).step_by(2) {
        ring.add_entry(0, first, Seq(first), b"name").unwrap();
        let ring = Rc::clone(&ring);
        disk.act.replace(Some(Box::new(move || {
            for seq in [first, first + 1] {
                let draft = Draft::new(Words(10));
                draft.record().iter().for_each(|word| word.store(seq, Ordering::Relaxed));
                ring.begin(Seq(seq)).unwrap().commit_draft(&draft, 10);
            }
        })));
        copier.copy();
        assert!(disk.act.borrow().is_none(), "nothing was written");
    }
    copier.mend_wholly();
    copier.copy();
    copier.sync();
    let end = copier.finish();
    assert_eq!((end.error, end.notes), (None, Vec::new()));
    let mut bytes = vec![0; original.segment.header().layout.file_bytes().0 as usize];
    disk.read_at(&mut bytes, Bytes(0)).unwrap();
    let ring = Ring::new(Box::new(bytes), Path::new("memory")).unwrap();
    let mut words = Vec::new();
    let missing: Vec<u64> =
        (0..SLOTS).filter(|seq| !ring.read(Seq(*seq), &mut words).unwrap()).collect();
    assert_eq!(missing, Vec::<u64>::new());
}
