//! Placeholder.
#![forbid(unsafe_code)]
use crate::domain::app::AppId;
use crate::domain::log::{LogFilter, LogFrame};
use bytes::Bytes;
use std::io;
use uuid::Uuid;
#[derive(Clone, Debug)]
pub struct Hub;
impl Hub {
    pub fn write(&self, _app: AppId, _frame: LogFrame) {}
    pub fn recent(&self, _app: AppId, _filter: &LogFilter, _lines: usize) -> Vec<LogFrame> {
        Vec::new()
    }
}
#[derive(Clone, Debug)]
pub struct Outputs;
impl Outputs {
    pub fn create(&self, _id: Uuid) -> io::Result<OutputWriter> {
        Ok(OutputWriter)
    }
    pub fn follow(&self, _id: Uuid) -> Option<OutputReader> {
        None
    }
}
#[derive(Clone, Debug)]
pub struct OutputWriter;
impl OutputWriter {
    pub fn write(&self, _bytes: &[u8]) {}
    pub fn finish(self) {}
}
#[derive(Debug)]
pub struct OutputReader;
impl OutputReader {
    pub async fn next(&mut self) -> Option<Bytes> {
        None
    }
}
