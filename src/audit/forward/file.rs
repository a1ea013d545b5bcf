//! A file that grows: one line for each record.
//!
//! Takes runs, gives lines that are on disk when a run counts as sent. It is opened again when it was moved away, and what a
//! crash left of a line is cut off before the next one is written.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Run, Sink, SinkFailure};

/// Writes to a file.
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
    /// Open, locked, and at the end of a line.
    file: Option<File>,
}

impl FileSink {
    /// Writes to the file at `path`, which is made when there is something to write.
    pub const fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }
}

impl Sink for FileSink {
    fn name(&self) -> &'static str {
        "file"
    }

    fn send<'a>(&'a mut self, run: &'a Run) -> BoxFuture<'a, Result<(), SinkFailure>> {
        async move {
            let (path, file, lines) = (self.path.clone(), self.file.take(), run.lines());
            // Should nobody wait any more, the lines are written all the same, whole.
            let written = tokio::task::spawn_blocking(move || write(&path, file, lines.as_bytes())).await;
            match written {
                Ok(Ok(file)) => {
                    self.file = Some(file);
                    Ok(())
                }
                Ok(Err(error)) => Err(SinkFailure::because(format_args!("{}: {error}", self.path.display()))),
                Err(_) => Err(SinkFailure::because("the file could not be written")),
            }
        }
        .boxed()
    }
}

/// Writes whole lines and has them on disk, at the place that has the name afterwards.
fn write(path: &Path, file: Option<File>, lines: &[u8]) -> io::Result<File> {
    let mut file = match file {
        Some(file) if has_name(&file, path)? => file,
        _ => open(path)?,
    };
    let before = file.metadata()?.len();
    if let Err(error) = file.write_all(lines).and_then(|()| file.sync_data()) {
        // Best left as it was; where that fails as well, whoever opens it next cuts what is no whole line.
        let _ = file.set_len(before);
        return Err(error);
    }
    if has_name(&file, path)? {
        Ok(file)
    } else {
        // Whoever moved it may have read it before the last line was there.
        Err(io::Error::other("it was moved away while it was written"))
    }
}

/// Whether `path` still names this file.
fn has_name(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn open(path: &Path) -> io::Result<File> {
    let existed = path.exists();
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::Error::other("another process writes it"),
        TryLockError::Error(error) => error,
    })?;
    if !existed {
        // The name, too, is there after a power cut.
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    if file.metadata()?.is_file() {
        end_last_line(&mut file)?;
    }
    Ok(file)
}

/// How much is read at once in search of the last whole line.
const BLOCK: u64 = 64 * 1024;

/// How the lines begin that are written here.
const BEGINNINGS: [&[u8]; 2] = [b"{\"chain\":", b"{\"checkpoint\":"];

/// Cuts off what was written of a line by somebody who did not come to its end: it is sent again. What is no line of ours
/// is given an end instead.
fn end_last_line(file: &mut File) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut end = length;
    while end > 0 {
        let begin = end.saturating_sub(BLOCK);
        let block = read(file, begin, end - begin)?;
        if let Some(newline) = block.iter().rposition(|octet| *octet == b'\n') {
            end = begin + newline as u64 + 1;
            break;
        }
        end = begin;
    }
    if end == length {
        return Ok(());
    }
    let tail = read(file, end, 16)?;
    if BEGINNINGS.iter().any(|beginning| beginning.iter().zip(&tail).all(|(one, other)| one == other)) {
        tracing::warn!(
            octets = length - end,
            "a line of the exported audit log is not whole: it is cut off and written again"
        );
        file.set_len(end)?;
    } else {
        file.write_all(b"\n")?;
    }
    file.sync_data()
}

fn read(file: &mut File, begin: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    file.seek(SeekFrom::Start(begin))?;
    Read::by_ref(file).take(length).read_to_end(&mut octets)?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::audit::forward::tests::{checkpoint, entry};

    fn run(sequence: i64) -> Run {
        Run::Records(vec![entry(1, sequence, &format!(r#"{{"kind":"decision","name":"Zürich {sequence} \n"}}"#))])
    }

    fn line(sequence: i64) -> String {
        run(sequence).lines()
    }

    /// A file in a directory of its own.
    struct Scene {
        directory: tempfile::TempDir,
        sink: FileSink,
    }

    impl Scene {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let sink = FileSink::new(directory.path().join("audit.jsonl"));
            Self { directory, sink }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("audit.jsonl")
        }

        fn text(&self) -> String {
            std::fs::read_to_string(self.path()).unwrap()
        }

        async fn refused(&mut self, run: &Run) -> String {
            self.sink.send(run).await.unwrap_err().reason
        }
    }

    #[tokio::test]
    async fn each_record_is_a_line_that_has_its_text() {
        let mut scene = Scene::new();
        scene.sink.send(&run(1)).await.unwrap();
        scene.sink.send(&Run::Checkpoint(checkpoint(2, "a.b.c"))).await.unwrap();
        scene.sink.send(&run(2)).await.unwrap();
        let text = scene.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let body = r#"{"kind":"decision","name":"Zürich 1 \n"}"#;
        assert!(lines[0].starts_with(r#"{"chain":1,"sequence":1,"at":1800000000000,"hash":""#), "{text}");
        assert!(lines[0].ends_with(&format!(r#","record":{body}}}"#)), "{text}");
        assert_eq!(lines[1], r#"{"checkpoint":{"number":2,"at":1800000000000,"statement":"a.b.c"}}"#);
        assert_eq!(std::fs::metadata(scene.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn what_is_no_json_in_one_line_stands_there_as_text() {
        let mut scene = Scene::new();
        for body in ["no JSON", "{\"kind\":\n\"x\"}", " {}", "{}\r", "{}{}", ""] {
            scene.sink.send(&Run::Records(vec![entry(1, 1, body)])).await.unwrap();
            let text = scene.text();
            let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
            assert_eq!((&last["text"], last.get("record")), (&body.into(), None));
        }
        assert_eq!(scene.text().lines().count(), 6);
    }

    #[tokio::test]
    async fn a_line_that_was_not_finished_is_cut_off() {
        let whole = line(1);
        for cut in [1, 2, 5, 40, whole.len() - 1] {
            let mut scene = Scene::new();
            std::fs::write(scene.path(), [whole.as_bytes(), &whole.as_bytes()[..cut]].concat()).unwrap();
            scene.sink.send(&run(2)).await.unwrap();
            assert_eq!(scene.text(), format!("{whole}{}", line(2)), "{cut} octets");
        }
        // Longer than what is read at once.
        let long = Run::Records(vec![entry(1, 1, &format!(r#"{{"long":"{}"}}"#, "a".repeat(200_000)))]).lines();
        let mut scene = Scene::new();
        std::fs::write(scene.path(), format!("{whole}{}", long.trim_end())).unwrap();
        scene.sink.send(&run(2)).await.unwrap();
        assert_eq!(scene.text(), format!("{whole}{}", line(2)));
    }

    #[tokio::test]
    async fn what_somebody_else_wrote_is_not_cut() {
        let mut scene = Scene::new();
        std::fs::write(scene.path(), "a note without an end").unwrap();
        scene.sink.send(&run(1)).await.unwrap();
        assert_eq!(scene.text(), format!("a note without an end\n{}", line(1)));
    }

    #[tokio::test]
    async fn a_file_that_was_moved_away_is_made_again() {
        let mut scene = Scene::new();
        scene.sink.send(&run(1)).await.unwrap();
        let moved = scene.directory.path().join("audit.jsonl.1");
        std::fs::rename(scene.path(), &moved).unwrap();
        scene.sink.send(&run(2)).await.unwrap();
        assert_eq!((std::fs::read_to_string(moved).unwrap(), scene.text()), (line(1), line(2)));
        std::fs::remove_file(scene.path()).unwrap();
        scene.sink.send(&run(3)).await.unwrap();
        assert_eq!(scene.text(), line(3));
        // Or copied and emptied.
        std::fs::File::options().write(true).open(scene.path()).unwrap().set_len(0).unwrap();
        scene.sink.send(&run(4)).await.unwrap();
        assert_eq!(scene.text(), line(4));
    }

    #[tokio::test]
    async fn a_file_has_one_writer() {
        let mut scene = Scene::new();
        scene.sink.send(&run(1)).await.unwrap();
        let mut other = FileSink::new(scene.path());
        assert!(other.send(&run(2)).await.unwrap_err().reason.contains("another process writes it"));
        drop(scene.sink.file.take());
        other.send(&run(2)).await.unwrap();
        assert_eq!(scene.text(), format!("{}{}", line(1), line(2)));
    }

    #[tokio::test]
    async fn a_full_disk_is_a_failure_and_nothing_more() {
        let mut sink = FileSink::new("/dev/full".into());
        for _ in 0..2 {
            assert!(sink.send(&run(1)).await.unwrap_err().reason.contains("No space left on device"));
        }
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_yet_is_waited_for() {
        let mut scene = Scene::new();
        let directory = scene.directory.path().join("later");
        scene.sink = FileSink::new(directory.join("audit.jsonl"));
        assert!(scene.refused(&run(1)).await.contains("No such file or directory"));
        std::fs::create_dir(&directory).unwrap();
        scene.sink.send(&run(1)).await.unwrap();
        assert_eq!(std::fs::read_to_string(directory.join("audit.jsonl")).unwrap(), line(1));
    }
}
