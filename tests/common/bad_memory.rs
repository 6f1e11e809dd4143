//! Memory of which a host cannot read some any more, though nothing is wrong with it: what runs there has
//! a library loaded before its own. Needs `cc`.

use super::wall_clock::compile;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static int is_bad(int fd, size_t count, off64_t at) {
  char link[64], path[4096];
  if (access(SWITCH, F_OK) != 0 || at >= TO || at + (off64_t)count <= FROM) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return strncmp(path, "/dev/shm/", 9) == 0 && strstr(path, ".ring") != NULL;
}
ssize_t pread64(int fd, void *bytes, size_t count, off64_t at) {
  ssize_t (*real)(int, void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pread64");
  if (!is_bad(fd, count, at)) return real(fd, bytes, count, at);
  errno = EIO;
  return -1;
}
"#;

/// Makes a library in `dir`: as long as the file `bad` is there, these bytes of rings in `/dev/shm`
/// cannot be read.
pub fn bad(dir: &Path, bytes: &Range<u64>) -> PathBuf {
    let [from, library, bad] = ["memory.c", "memory.so", "bad"].map(|name| dir.join(name));
    fs::write(&from, LIBRARY).unwrap();
    let switch = format!("-DSWITCH=\"{}\"", bad.display());
    let bounds = [format!("-DFROM={}", bytes.start), format!("-DTO={}", bytes.end)];
    compile(&[&switch, &bounds[0], &bounds[1]], &[], &from, &library);
    library
}
