//! The part of a filter that looks at arguments: rules in the order of the profile, each a chain of
//! comparisons that ends in its action or goes on to the next rule. Comparisons are lowered by seccompiler.

use seccompiler::{
    BpfProgram, SeccompCmpArgLen, SeccompCmpOp as Operator, SeccompCondition, SeccompRule, sock_filter,
};

use super::arch::Width;
use super::profile::Condition;
use super::tree::give;
use crate::sys::seccomp::Instruction;

/// A set of conditions and what the filter returns when all of them hold.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Answer {
    pub conditions: Vec<Condition>,
    pub action: u32,
}

/// The conditions that can fail. A mask without bits holds for every argument, and a rule of only such
/// conditions is one without conditions.
pub(super) fn needed(conditions: &[Condition], width: Width) -> impl Iterator<Item = &Condition> {
    conditions.iter().filter(move |condition| match (condition.operator.clone(), width) {
        (Operator::MaskedEq(mask), Width::Bits64) => mask != 0,
        (Operator::MaskedEq(mask), Width::Bits32) => mask as u32 != 0,
        _ => true,
    })
}

/// The first answer that holds, in order, or `otherwise`.
pub(super) fn lower(answers: &[Answer], otherwise: u32, width: Width, big_endian: bool) -> Vec<Instruction> {
    let mut body = Vec::new();
    for answer in answers {
        body.extend(lower_conditions(&answer.conditions, width).into_iter().map(|instruction| {
            let mut lowered = Instruction {
                code: instruction.code,
                if_true: instruction.jt,
                if_false: instruction.jf,
                value: instruction.k,
            };
            if big_endian && lowered.code == LOAD_WORD {
                // seccompiler writes for little endian machines; on others the halves are swapped.
                lowered.value ^= 4;
            }
            lowered
        }));
        body.push(give(answer.action));
    }
    body.push(give(otherwise));
    body
}

const LOAD_WORD: u16 = 0x20;

/// seccompiler puts two jumps before a rule, for filters that enter and skip whole rules. Ours are fallen
/// into, and a failing comparison jumps by itself behind the instruction that follows the rule.
const ENTRY_JUMPS: usize = 2;

fn lower_conditions(conditions: &[Condition], width: Width) -> Vec<sock_filter> {
    let length = match width {
        Width::Bits32 => SeccompCmpArgLen::Dword,
        Width::Bits64 => SeccompCmpArgLen::Qword,
    };
    let lowered = conditions.iter().map(|condition| {
        SeccompCondition::new(condition.index, length.clone(), condition.operator.clone(), condition.value)
            .expect("the index of an argument was checked")
    });
    let rule = SeccompRule::new(lowered.collect()).expect("a rule without conditions has no body");
    let mut program = BpfProgram::from(rule);
    program.drain(..ENTRY_JUMPS);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equal(index: u8, value: u64) -> Condition {
        Condition { index, operator: Operator::Eq, value }
    }

    #[test]
    fn an_answer_is_comparisons_then_its_action() {
        let answers = [Answer { conditions: vec![equal(1, 0x2_0000_0003)], action: 7 }];
        let words = |width, big| -> Vec<(u16, u8, u32)> {
            lower(&answers, 9, width, big).iter().map(|i| (i.code, i.if_false, i.value)).collect()
        };
        assert_eq!(
            words(Width::Bits64, false),
            [(0x20, 0, 28), (0x15, 3, 2), (0x20, 0, 24), (0x15, 1, 3), (6, 0, 7), (6, 0, 9)]
        );
        assert_eq!(words(Width::Bits64, true)[0], (0x20, 0, 24));
        assert_eq!(words(Width::Bits64, true)[2], (0x20, 0, 28));
        assert_eq!(words(Width::Bits32, false), [(0x20, 0, 24), (0x15, 1, 3), (6, 0, 7), (6, 0, 9)]);
    }

    #[test]
    fn a_mask_without_bits_is_no_condition() {
        let masked = |mask| [Condition { index: 0, operator: Operator::MaskedEq(mask), value: 0 }];
        assert_eq!(needed(&masked(0), Width::Bits64).count(), 0);
        assert_eq!(needed(&masked(1 << 32), Width::Bits64).count(), 1);
        assert_eq!(needed(&masked(1 << 32), Width::Bits32).count(), 0);
    }
}
