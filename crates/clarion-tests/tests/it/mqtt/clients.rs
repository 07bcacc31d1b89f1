//! Clients that others wrote, as processes of their own or as libraries. Each says in one line what it was and what it did.
//! Must not know: our client.

mod browser;
mod javascript;
mod mosquitto;
mod paho;
mod rust;
