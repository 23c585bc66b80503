//! System call filters: a policy compiled into a binary decision tree of classic BPF.
//!
//! When a filter is loaded, the kernel runs it once for every system call to see which are always allowed; a list that
//! compares number after number makes that three times as long as a tree does, and it is on the path of every launch.

use std::io;

/// What happens to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    Errno(u16),
    KillProcess,
}

impl Verdict {
    fn value(self) -> u32 {
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
            Self::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }
}

/// Holds when `argument & mask == value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// 0 to 5.
    pub argument: u8,
    pub mask: u64,
    pub value: u64,
}

/// What happens to one system call when all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub number: u32,
    pub conditions: Vec<Condition>,
    pub verdict: Verdict,
}

/// Rules of one number are tried in their order; where none holds, `otherwise` does. Another machine's calls (32-bit
/// ones, say) end the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub rules: Vec<Rule>,
    pub otherwise: Verdict,
}

/// A compiled policy.
#[derive(Clone, Debug)]
pub struct Program(Vec<libc::sock_filter>);

/// This machine in `seccomp_data.arch` (`AUDIT_ARCH_*` of linux/audit.h).
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const MACHINE: u32 = 4;
const ARGUMENTS: u32 = 16;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_NOT_BELOW: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// The numbers from `first` up to the next leaf's all mean the same.
struct Leaf<'a> {
    first: u32,
    rules: Vec<&'a Rule>,
}

/// Compiles a policy.
pub fn compile(policy: &Policy) -> Program {
    let mut code = vec![
        instruction(LOAD, 0, 0, MACHINE),
        instruction(IF_EQUAL, 1, 0, ARCH),
        instruction(RETURN, 0, 0, Verdict::KillProcess.value()),
        instruction(LOAD, 0, 0, NUMBER),
    ];
    code.extend(tree(&leaves(policy), policy.otherwise));
    Program(code)
}

impl Program {
    /// The instructions as the kernel takes them (`struct sock_filter`), for a loader that is not ours.
    pub fn to_bytes(&self) -> Vec<u8> {
        let bytes = |i: &libc::sock_filter| [&i.code.to_ne_bytes()[..], &[i.jt, i.jf], &i.k.to_ne_bytes()].concat();
        self.0.iter().flat_map(bytes).collect()
    }

    /// Filters all that this thread calls from now on. Needs `no_new_privs`.
    ///
    /// # Errors
    /// `seccomp(2)`.
    pub fn load(&self) -> io::Result<()> {
        let program = libc::sock_fprog {
            len: u16::try_from(self.0.len()).map_err(io::Error::other)?,
            filter: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: the program and its instructions live across the call, which only reads them.
        let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Cuts all numbers into runs that are treated alike.
fn leaves(policy: &Policy) -> Vec<Leaf<'_>> {
    let mut rules: Vec<&Rule> = policy.rules.iter().collect();
    rules.sort_by_key(|rule| rule.number);
    let mut leaves = vec![Leaf { first: 0, rules: Vec::new() }];
    for same in rules.chunk_by(|a, b| a.number == b.number) {
        leaves.push(Leaf { first: same[0].number, rules: same.to_vec() });
        leaves.push(Leaf { first: same[0].number + 1, rules: Vec::new() });
    }
    // Of two leaves that begin at the same number the first is empty.
    let mut kept: Vec<Leaf<'_>> = Vec::new();
    for leaf in leaves {
        if kept.last().is_some_and(|last| last.first == leaf.first) {
            kept.pop();
        }
        if !kept.last().is_some_and(|last| alike(last, &leaf)) {
            kept.push(leaf);
        }
    }
    kept
}

fn alike(a: &Leaf<'_>, b: &Leaf<'_>) -> bool {
    let bare = |leaf: &Leaf<'_>| match leaf.rules.as_slice() {
        [] => Some(None),
        [rule] if rule.conditions.is_empty() => Some(Some(rule.verdict)),
        _ => None,
    };
    bare(a).is_some() && bare(a) == bare(b)
}

fn tree(leaves: &[Leaf<'_>], otherwise: Verdict) -> Vec<libc::sock_filter> {
    if let [leaf] = leaves {
        return decide(&leaf.rules, otherwise);
    }
    let (below, above) = leaves.split_at(leaves.len() / 2);
    let (first, low, high) = (above[0].first, tree(below, otherwise), tree(above, otherwise));
    let mut code = match u8::try_from(low.len()) {
        Ok(distance) => vec![instruction(IF_NOT_BELOW, distance, 0, first)],
        // Conditional jumps reach 255 instructions far.
        Err(_) => vec![
            instruction(IF_NOT_BELOW, 0, 1, first),
            instruction(JUMP, 0, 0, u32::try_from(low.len()).expect("programs have at most 4096 instructions")),
        ],
    };
    code.extend(low);
    code.extend(high);
    code
}

fn decide(rules: &[&Rule], otherwise: Verdict) -> Vec<libc::sock_filter> {
    let mut code = Vec::new();
    for rule in rules {
        // Per condition and half: load, and, compare; after a failed comparison on to the next rule.
        let mut checks: Vec<[libc::sock_filter; 3]> = Vec::new();
        for condition in &rule.conditions {
            let offset = ARGUMENTS + 8 * u32::from(condition.argument);
            for (offset, shift) in [(offset, 0), (offset + 4, 32)] {
                let half = |value: u64| u32::try_from((value >> shift) & 0xffff_ffff).expect("masked to 32 bits");
                if half(condition.mask) != 0 {
                    checks.push([
                        instruction(LOAD, 0, 0, offset),
                        instruction(AND, 0, 0, half(condition.mask)),
                        instruction(IF_EQUAL, 0, 0, half(condition.value)),
                    ]);
                }
            }
        }
        let total = 3 * checks.len();
        for (index, mut check) in checks.into_iter().enumerate() {
            check[2].jf = u8::try_from(total - 3 * (index + 1) + 1).expect("a rule has few conditions");
            code.extend(check);
        }
        code.push(instruction(RETURN, 0, 0, rule.verdict.value()));
        if rule.conditions.is_empty() {
            return code;
        }
    }
    code.push(instruction(RETURN, 0, 0, otherwise.value()));
    code
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).expect("BPF codes are 16 bits wide"), jt, jf, k }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a program as the kernel would (the subset that ours and seccompiler's use).
    pub(crate) fn run(code: &[(u16, u8, u8, u32)], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(number.to_ne_bytes());
        data.extend(arch.to_ne_bytes());
        data.extend(0u64.to_ne_bytes());
        data.extend(arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
        let (mut at, mut a) = (0usize, 0u32);
        loop {
            let (op, jt, jf, k) = code[at];
            at += 1;
            let jump = |taken: bool| usize::from(if taken { jt } else { jf });
            match u32::from(op) {
                LOAD => a = u32::from_ne_bytes(data[k as usize..k as usize + 4].try_into().unwrap()),
                AND => a &= k,
                JUMP => at += k as usize,
                IF_EQUAL => at += jump(a == k),
                IF_NOT_BELOW => at += jump(a >= k),
                op if op == libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K => at += jump(a > k),
                RETURN => return k,
                op => panic!("unexpected instruction {op:#x}"),
            }
        }
    }

    pub(crate) fn ours(policy: &Policy) -> Vec<(u16, u8, u8, u32)> {
        compile(policy).0.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect()
    }

    pub(crate) const HERE: u32 = ARCH;

    fn meant(policy: &Policy, number: u32, arguments: [u64; 6]) -> u32 {
        let holds = |c: &Condition| arguments[usize::from(c.argument)] & c.mask == c.value;
        let rule = policy.rules.iter().find(|r| r.number == number && r.conditions.iter().all(holds));
        rule.map_or(policy.otherwise, |rule| rule.verdict).value()
    }

    fn conditions() -> impl Strategy<Value = Vec<Condition>> {
        let masks = prop_oneof![Just(0xff), Just(u64::MAX), Just(0xf_0000_0000), Just(3)];
        let one = (0u8..3, masks, 0u64..4).prop_map(|(argument, mask, value)| Condition {
            argument,
            mask,
            value: (value | value << 32) & mask,
        });
        prop::collection::vec(one, 0..3)
    }

    proptest! {
        #[test]
        fn a_compiled_policy_says_what_the_policy_says(
            rules in prop::collection::vec((0u32..40, conditions(), prop_oneof![
                Just(Verdict::Allow), Just(Verdict::Errno(1)), Just(Verdict::Errno(38))]), 0..60),
            arguments in prop::collection::vec((0u64..4).prop_map(|v| v | v << 32), 6),
        ) {
            let rules = rules.into_iter().map(|(number, conditions, verdict)| Rule { number, conditions, verdict });
            let policy = Policy { rules: rules.collect(), otherwise: Verdict::Errno(38) };
            let (code, arguments) = (ours(&policy), arguments.try_into().unwrap());
            for number in (0..45).chain([u32::MAX]) {
                prop_assert_eq!(run(&code, ARCH, number, arguments), meant(&policy, number, arguments), "{}", number);
            }
            prop_assert_eq!(run(&code, ARCH ^ 1, 0, arguments), Verdict::KillProcess.value());
        }
    }
}
