//! The file of records: appended to, begun anew when it is full or was moved away.
//!
//! Refuses to split a line over two files, to glue a record to half a line that a crash left,
//! and to share its file with another process.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::AuditError;
use crate::config::AuditFile;

/// Owner writes, group reads: log shippers run under another user.
const FILE_MODE: u32 = 0o640;

/// A file of records, and the older ones beside it: `<path>.1` is the youngest of them.
pub(super) struct LogFile {
    path: PathBuf,
    rotate_at: u64,
    keep: u32,
    /// The file that is written; none after it was found gone or doubtful.
    open: Option<OpenFile>,
}

/// A file that is written, as it must look as long as nobody else touches it.
struct OpenFile {
    file: File,
    /// Device and inode: the path may come to lead to another file.
    identity: (u64, u64),
    length: u64,
}

impl LogFile {
    /// Opens the file, and makes it if need be. A last line without an end is ended and kept: it is
    /// evidence.
    pub(super) fn open(config: &AuditFile) -> Result<Self, AuditError> {
        let path = config.path.clone();
        let open = Some(OpenFile::at(&path)?);
        Ok(Self { path, rotate_at: config.rotate_at.bytes(), keep: config.keep, open })
    }

    /// Writes whole `lines` from `done` on, and moves `done` past what the file has, for good where
    /// `durable`. After an error, a call with the same lines goes on at `done`.
    ///
    /// Every line is written once, with one exception: after a sync that failed, which of its lines
    /// the disk has is unknown, so all of them are written again.
    pub(super) fn write(&mut self, lines: &[u8], done: &mut usize, durable: bool) -> Result<(), AuditError> {
        while *done < lines.len() {
            self.leave_if_gone(lines, done)?;
            let path = &self.path;
            let open = match &mut self.open {
                Some(open) => open,
                none => none.insert(OpenFile::at(path)?),
            };
            let room = self.rotate_at.saturating_sub(open.length);
            match fitting(lines, *done, room, open.length == 0) {
                0 => self.rotate(done)?,
                fitting => {
                    let chunk = lines.get(..*done + fitting).unwrap_or(lines);
                    let before = *done;
                    let written = write_from(&mut open.file, chunk, done);
                    open.length += u64::try_from(*done - before).unwrap_or(0);
                    written.map_err(|source| AuditError::Write { path: path.clone(), source })?;
                }
            }
        }
        if durable { self.sync(done) } else { Ok(()) }
    }

    /// Closes the file when the path no longer leads to it as it was left: a log rotation from outside
    /// moved it, or somebody removed or cut it.
    fn leave_if_gone(&mut self, lines: &[u8], done: &mut usize) -> Result<(), AuditError> {
        if self.open.as_ref().is_none_or(|open| open.is_at(&self.path)) {
            return Ok(());
        }
        tracing::warn!(path = %self.path.display(), "the audit file was moved, removed or changed by others; it is opened anew");
        // The rest of a half-written line has no place in another file.
        *done = line_start(lines, *done);
        self.sync(done)?;
        self.open = None;
        Ok(())
    }

    /// Returns when all that was written is on disk; otherwise sets `done` to 0.
    pub(super) fn sync(&mut self, done: &mut usize) -> Result<(), AuditError> {
        let Some(open) = &self.open else { return Ok(()) };
        open.file.sync_data().map_err(|source| {
            *done = 0;
            self.open = None;
            AuditError::Write { path: self.path.clone(), source }
        })
    }

    /// Moves the file aside; the next write begins a new one.
    fn rotate(&mut self, done: &mut usize) -> Result<(), AuditError> {
        self.sync(done)?;
        self.shift().map_err(|source| AuditError::Rotate { path: self.path.clone(), source })?;
        self.open = None;
        Ok(())
    }

    /// Makes room behind the name of the file. Safe to repeat after it was cut short anywhere.
    fn shift(&self) -> io::Result<()> {
        let mut last = 1;
        // Files behind a gap, as a rotation that was cut short leaves it, stay where they are.
        while last < self.keep && self.older(last).try_exists()? {
            last += 1;
        }
        for number in (1..last).rev() {
            fs::rename(self.older(number), self.older(number + 1))?;
        }
        if self.keep == 0 {
            fs::remove_file(&self.path)?;
        } else {
            fs::rename(&self.path, self.older(1))?;
        }
        let beyond = (self.keep.saturating_add(1)..u32::MAX).map(|number| self.older(number));
        for path in beyond {
            match fs::remove_file(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                removed => removed?,
            }
        }
        sync_folder_of(&self.path)
    }

    fn older(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }
}

impl OpenFile {
    fn at(path: &Path) -> Result<Self, AuditError> {
        let failed = |source| AuditError::Open { path: path.to_owned(), source };
        // Reading is needed to look at the last byte; it also keeps the opening of a pipe from waiting.
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(FILE_MODE);
        let mut file = options.open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(AuditError::NotAFile { path: path.to_owned() });
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(AuditError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        end_last_line(&mut file).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.len() == 0 {
            // A file that was just made is on disk only when its folder is.
            sync_folder_of(path).map_err(failed)?;
        }
        Ok(Self { file, identity: identity(&metadata), length: metadata.len() })
    }

    /// Whether `path` still leads to this file, and nobody else changed it.
    fn is_at(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|found| identity(&found) == self.identity && found.len() == self.length)
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Ends a line that a crash cut short, so that the next record stands on its own.
fn end_last_line(file: &mut File) -> io::Result<()> {
    if file.metadata()?.len() == 0 {
        return Ok(());
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}

/// Makes new, renamed and removed names in the folder of `path` last.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// How many bytes of `lines` from `done` on go into a file that has `room` for so many: whole lines
/// only. The rest of a line that was begun goes where its beginning is, and a line that is
/// longer than a file may be goes into an `empty` one.
fn fitting(lines: &[u8], done: usize, room: u64, empty: bool) -> usize {
    let rest = lines.get(done..).unwrap_or_default();
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if rest.len() <= room {
        return rest.len();
    }
    let whole = line_start(rest, room);
    if whole > 0 {
        return whole;
    }
    if empty || line_start(lines, done) != done {
        return rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
    }
    0
}

/// Where the line begins that the byte at `position` belongs to.
fn line_start(lines: &[u8], position: usize) -> usize {
    let before = lines.get(..position).unwrap_or(lines);
    before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

/// Writes `bytes` from `done` on, and moves `done` past every byte written, also when it then fails.
pub(super) fn write_from(file: &mut File, bytes: &[u8], done: &mut usize) -> io::Result<()> {
    while let Some(rest) = bytes.get(*done..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => *done += written,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A stream that its other end made non-blocking is full: back-pressure, not a failure.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
