//! How long a crashed dyno waits before it is started again.
#![forbid(unsafe_code)]

use std::time::Duration;

/// The longest wait; the dyno is tried again at this pace for ever.
pub const CAP: Duration = Duration::from_secs(600);

/// The wait after the `streak`-th crash in a row: none after the first, then 1 s, doubling up to [`CAP`].
pub fn delay(streak: u32) -> Duration {
    match streak {
        0 | 1 => Duration::ZERO,
        n => Duration::from_secs(1 << (n - 2).min(20)).min(CAP),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_at_once_grows_and_is_capped() {
        assert_eq!(delay(1), Duration::ZERO);
        let delays: Vec<u64> = (2..8).map(|n| delay(n).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32]);
        assert_eq!(delay(u32::MAX), CAP);
        assert!((1..100).all(|n| delay(n) <= delay(n + 1)));
    }
}
