//! A small root in RAM, and the init that runs it.

pub mod init;
pub mod network;
pub mod service;
mod sys;
