//! Stage a minimal system into RAM and move PID 1 into it, so that the flash can be rewritten.

pub mod cli;

pub mod config;

pub mod facts;

pub mod arm;

pub mod keys;

pub mod select;

pub mod network;

pub mod plan;

pub mod budget;

pub mod run_mount;

pub mod stage;

pub mod arming;

pub mod build;

pub mod image;

pub mod leave;

pub mod manifest;

pub mod state;

pub mod handover;

pub mod status;

pub mod check;

pub mod abort;

pub mod when;

mod sys;

#[cfg(test)]
mod fixture;
