//! How often somebody may be wrong about a password: so often an address, so often an address about one account, and so
//! often all addresses together about one account.
//!
//! The last would let strangers lock somebody out. So it does not hold for an address from which that account has been
//! logged in to, and one address alone never gets that far: what it may try is less than what all together may. Root's
//! socket has no address and no limit. All of it is in memory, and a restart forgets it.
#![forbid(unsafe_code)]

use super::ControlError;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So many wrong passwords at once, and then one more each so often.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    burst: u32,
    every: Duration,
}

const OF_ADDRESS: Allowance = Allowance { burst: 10, every: Duration::from_secs(6) };
const OF_PAIR: Allowance = Allowance { burst: 5, every: Duration::from_secs(60) };
const OF_ACCOUNT: Allowance = Allowance { burst: 100, every: Duration::from_secs(30) };

/// So many addresses and accounts are remembered; whoever comes on top of that shares one allowance.
const REMEMBERED: usize = 10_000;

/// Shared by its clones.
#[derive(Clone, Debug, Default)]
pub struct Guesses(Arc<Mutex<Tables>>);

#[derive(Debug, Default)]
struct Tables {
    addresses: Table<IpAddr>,
    pairs: Table<(IpAddr, String)>,
    accounts: Table<String>,
    /// From where an account has been logged in to.
    known: HashSet<(IpAddr, String)>,
}

/// One try, which counts as wrong unless [`Try::right`] says otherwise: several at once are no way around the limit.
#[derive(Debug)]
pub struct Try {
    guesses: Guesses,
    who: Option<(IpAddr, String)>,
    known: bool,
}

impl Guesses {
    /// Lets somebody try a password.
    ///
    /// # Errors
    /// [`ControlError::TooManyGuesses`] with when to come again.
    pub fn begin(&self, from: Option<IpAddr>, account: &str) -> Result<Try, ControlError> {
        self.begin_at(from, account, Instant::now())
    }

    fn begin_at(&self, from: Option<IpAddr>, account: &str, now: Instant) -> Result<Try, ControlError> {
        let Some(from) = from else { return Ok(Try { guesses: self.clone(), who: None, known: true }) };
        let pair = (network(from), account.to_ascii_lowercase());
        let mut tables = self.lock();
        let known = tables.known.contains(&pair);
        let waits = [
            tables.addresses.wait(&pair.0, OF_ADDRESS, now),
            tables.pairs.wait(&pair, OF_PAIR, now),
            if known { None } else { tables.accounts.wait(&pair.1, OF_ACCOUNT, now) },
        ];
        if let Some(wait) = waits.into_iter().flatten().max() {
            return Err(ControlError::TooManyGuesses { seconds: wait.as_secs() + 1 });
        }
        tables.addresses.take(pair.0, OF_ADDRESS, now);
        tables.pairs.take(pair.clone(), OF_PAIR, now);
        if !known {
            tables.accounts.take(pair.1.clone(), OF_ACCOUNT, now);
        }
        Ok(Try { guesses: self.clone(), who: Some(pair), known })
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Try {
    /// It was the password, or nothing was tried: it does not count.
    pub fn right(self, logged_in: bool) {
        let Some(pair) = self.who else { return };
        let mut tables = self.guesses.lock();
        tables.addresses.give_back(&pair.0, OF_ADDRESS);
        tables.pairs.give_back(&pair, OF_PAIR);
        if !self.known {
            tables.accounts.give_back(&pair.1, OF_ACCOUNT);
        }
        if logged_in && tables.known.len() < REMEMBERED {
            tables.known.insert(pair);
        }
    }
}

/// Who has one address of IPv6 has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// When the allowance of each is whole again: the later, the more of it is used.
#[derive(Debug)]
struct Table<K> {
    whole: HashMap<K, Instant>,
    others: Option<Instant>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { whole: HashMap::new(), others: None }
    }
}

impl<K: Eq + Hash> Table<K> {
    /// How long until the next is allowed; none when it is now.
    fn wait(&self, key: &K, Allowance { burst, every }: Allowance, now: Instant) -> Option<Duration> {
        let full = self.whole.len() >= REMEMBERED;
        let whole = self.whole.get(key).copied().or(if full { self.others } else { None })?;
        let used = whole.saturating_duration_since(now);
        used.checked_sub(every * (burst - 1)).filter(|over| !over.is_zero())
    }

    fn take(&mut self, key: K, Allowance { every, .. }: Allowance, now: Instant) {
        if self.whole.len() >= REMEMBERED && !self.whole.contains_key(&key) {
            self.whole.retain(|_, whole| *whole > now);
        }
        let later = |whole: Option<Instant>| whole.filter(|whole| *whole > now).unwrap_or(now) + every;
        if self.whole.len() < REMEMBERED || self.whole.contains_key(&key) {
            let before = self.whole.get(&key).copied();
            self.whole.insert(key, later(before));
        } else {
            self.others = Some(later(self.others));
        }
    }

    fn give_back(&mut self, key: &K, Allowance { every, .. }: Allowance) {
        if let Some(whole) = self.whole.get_mut(key) {
            *whole = whole.checked_sub(every).unwrap_or(*whole);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn wait(tried: Result<Try, ControlError>) -> u64 {
        match tried {
            Err(ControlError::TooManyGuesses { seconds }) => seconds,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_address_is_wrong_about_an_account_a_few_times_and_then_once_a_minute() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        for _ in 0..5 {
            guesses.begin_at(Some(at(1)), "ann@example.com", now).unwrap();
        }
        assert_eq!(wait(guesses.begin_at(Some(at(1)), "Ann@Example.com", now)), 61);
        guesses.begin_at(Some(at(2)), "ann@example.com", now).unwrap();
        guesses.begin_at(None, "ann@example.com", now).unwrap();
        let later = now + Duration::from_secs(61);
        guesses.begin_at(Some(at(1)), "ann@example.com", later).unwrap();
        assert!(wait(guesses.begin_at(Some(at(1)), "ann@example.com", later)) <= 60);
    }

    #[test]
    fn an_address_is_wrong_about_all_accounts_together_a_few_times_more() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        for name in 0..10 {
            guesses.begin_at(Some(at(1)), &format!("{name}@example.com"), now).unwrap();
        }
        assert_eq!(wait(guesses.begin_at(Some(at(1)), "bob@example.com", now)), 7);
        let six = |last| Some(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]));
        for last in 0..10 {
            guesses.begin_at(six(last), &format!("{last}@example.com"), now).unwrap();
        }
        assert_eq!(wait(guesses.begin_at(six(99), "bob@example.com", now)), 7, "one network of IPv6 is one address");
    }

    #[test]
    fn what_was_right_does_not_count() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        for _ in 0..50 {
            guesses.begin_at(Some(at(1)), "ann@example.com", now).unwrap().right(true);
        }
    }

    #[test]
    fn many_addresses_together_lock_nobody_out_from_where_he_was() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        guesses.begin_at(Some(at(200)), "ann@example.com", now).unwrap().right(true);
        let tried = (0..50).flat_map(|last| std::iter::repeat_n(last, 5));
        let refused = tried.filter(|last| guesses.begin_at(Some(at(*last)), "ann@example.com", now).is_err()).count();
        assert_eq!(refused, 150);
        wait(guesses.begin_at(Some(at(201)), "ann@example.com", now));
        guesses.begin_at(Some(at(200)), "ann@example.com", now).unwrap();
    }

    #[test]
    fn one_address_alone_never_locks_an_account() {
        let (guesses, begun) = (Guesses::default(), Instant::now());
        for second in 0..24 * 3600 {
            let _ = guesses.begin_at(Some(at(1)), "ann@example.com", begun + Duration::from_secs(second));
        }
        guesses.begin_at(Some(at(2)), "ann@example.com", begun + Duration::from_secs(24 * 3600)).unwrap();
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let from = |n: u32| Some(IpAddr::from((0x0a00_0000 + n).to_be_bytes()));
        let refused = (0..30_000).filter(|n| guesses.begin_at(from(*n), &format!("{n}@x"), now).is_err()).count();
        assert!(refused > 19_000, "{refused}");
        assert!(guesses.lock().addresses.whole.len() <= REMEMBERED);
        guesses.begin_at(from(99_999), "new@x", now + Duration::from_secs(7200)).unwrap();
    }
}
