//! The one integration-test binary: each module a subject, each test real processes.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::print_stdout,
    reason = "all of this is test code, its helpers too"
)]

mod api;
mod auth;
mod bad_input;
mod bench_grpc;
mod bench_mqtt;
mod clients;
mod crash;
mod data_dir;
mod documented;
mod faults;
mod five_minutes;
mod golden;
mod grpc;
mod grpc_bad_input;
mod grpc_clients;
mod grpc_faults;
mod mikudos_config;
mod mqtt;
mod mqtt_durable;
mod openapi;
mod protos;
mod publish;
mod queues;
mod readers;
mod retained;
mod sessions;
mod stop;
mod stored_sessions;
mod streams;
mod tidy;
