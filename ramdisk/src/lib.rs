//! A small root in RAM, and the init that runs it.

pub mod path;

pub mod closure;

pub mod users;

pub mod original;

pub mod tree;

pub mod sink;

mod copy;

pub mod dir_sink;

pub mod newc;

pub mod init;

pub mod commands;

pub mod controllers;

pub mod network;
pub mod service;
mod sys;
