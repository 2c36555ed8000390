//! A small root in RAM, and the init that runs it.

pub mod path;

pub mod wildcard;

pub mod closure;

pub mod users;

pub mod original;

pub mod tree;

pub mod sink;

mod copy;

pub mod dir_sink;

pub mod newc;

pub mod network;

pub mod service;

pub mod mount_table;

mod process_stat;
mod sys;

pub mod init;

pub mod commands;

pub mod controllers;
