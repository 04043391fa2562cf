//! 4. Translate: choosing a port, and the only writers of headers.

pub mod answer;
pub mod apply;
pub mod cone;
pub mod icmp_error;
pub mod port;
