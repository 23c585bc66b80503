//! An app's log, read from its files as they grow: no line of a dyno may be missing, doubled or out of order.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

pub(crate) struct Ledger {
    dir: PathBuf,
    file: u64,
    offset: u64,
    launches: HashMap<String, Launch>,
    /// The platform's own lines since [`Ledger::forget_lines`]: the process they are of, and what they say.
    pub(crate) platform: Vec<(String, String)>,
    /// What one-off dynos printed since then.
    pub(crate) printed: Vec<(String, String)>,
}

/// How far one launch has come.
#[derive(Default)]
struct Launch {
    /// Lines, by the number that the shim gave them.
    lines: u64,
    counted: u64,
    /// Its last words were read.
    ended: bool,
}

impl Ledger {
    pub(crate) fn new(dir: PathBuf) -> Self {
        let (launches, platform, printed) = (HashMap::new(), Vec::new(), Vec::new());
        Self { dir, file: 1, offset: 0, launches, platform, printed }
    }

    pub(crate) fn forget_lines(&mut self) {
        self.platform.clear();
        self.printed.clear();
    }

    /// How far the launch has counted in what was read.
    pub(crate) fn counted(&self, launch: &str) -> u64 {
        self.launches.get(launch).map_or(0, |launch| launch.counted)
    }

    /// The launches that have counted and not said how far they came when they were told to end.
    pub(crate) fn without_an_end(&self) -> impl Iterator<Item = (&String, u64)> {
        let silent = self.launches.iter().filter(|(_, launch)| launch.counted > 0 && !launch.ended);
        silent.map(|(id, launch)| (id, launch.counted))
    }

    /// Reads what is new. What is wrong with it, which no later line can mend.
    pub(crate) fn read(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        loop {
            if let Ok(mut file) = File::open(self.dir.join(format!("{}.log", self.file))) {
                file.seek(SeekFrom::Start(self.offset)).unwrap();
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).unwrap();
                // A line that is half there is being written, or will be cut off.
                let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                for line in bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    match serde_json::from_slice(line) {
                        Ok(frame) => self.take(&frame, &mut wrong),
                        Err(error) => wrong.push(format!("{error}: {}", String::from_utf8_lossy(line))),
                    }
                }
                self.offset += u64::try_from(whole).unwrap();
            }
            if !self.dir.join(format!("{}.log", self.file + 1)).exists() {
                return wrong;
            }
            (self.file, self.offset) = (self.file + 1, 0);
        }
    }

    fn take(&mut self, frame: &serde_json::Value, wrong: &mut Vec<String>) {
        let Some(line) = frame["line"].as_str() else { return };
        let process = frame["process"].as_str().unwrap().to_owned();
        let Some(id) = frame["origin"][0].as_str() else {
            self.platform.push((process, line.to_owned()));
            return;
        };
        let number = frame["origin"][1].as_u64().unwrap();
        let launch = self.launches.entry(id.to_owned()).or_default();
        if number != launch.lines + 1 {
            wrong.push(format!("line {number} of {process} {id} after line {}: {line}", launch.lines));
        }
        launch.lines = number;
        if let Some(count) = line.strip_prefix("count ").and_then(|count| count.parse::<u64>().ok()) {
            if count != launch.counted + 1 || launch.ended {
                wrong.push(format!("{line:?} of {process} {id} after {}", launch.counted));
            }
            launch.counted = count;
        } else if let Some(count) = line.strip_prefix("counted ").and_then(|count| count.parse::<u64>().ok()) {
            if count != launch.counted || launch.ended {
                wrong.push(format!("{line:?} of {process} {id}, and {} are in the log", launch.counted));
            }
            launch.ended = true;
        } else {
            self.printed.push((process, line.to_owned()));
        }
    }
}
