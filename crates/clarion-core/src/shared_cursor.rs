//! A cursor that several members share: each message to one set of members at a time, under a lease (design §1.6).
