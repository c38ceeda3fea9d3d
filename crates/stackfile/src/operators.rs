//! Arithmetic, comparison and logic.

use hcl_edit::expr::{BinaryOperator, UnaryOperator};

use crate::eval::out_of_range;
use crate::fault::{Eval, Fault, both};
use crate::source::At;
use crate::value::{Data, Value};

/// Returns the value of `-a` or `!a`.
pub(crate) fn unary(operator: UnaryOperator, operand: &Value, at: At) -> Eval<Value> {
    let data = match operator {
        UnaryOperator::Neg => Data::Number(operand.to_number()?.negate().ok_or_else(|| out_of_range(at))?),
        UnaryOperator::Not => Data::Bool(!operand.to_bool()?),
    };
    Ok(Value::new(data, at).marked(operand.is_sensitive()))
}

/// Returns the value of `false && …` and `true || …`, whose right side is not evaluated.
pub(crate) fn decided_by_left(operator: BinaryOperator, left: &Value) -> Option<bool> {
    match (operator, left.to_bool()) {
        (BinaryOperator::And, Ok(false)) => Some(false),
        (BinaryOperator::Or, Ok(true)) => Some(true),
        _ => None,
    }
}

/// Returns the value of `left operator right`.
pub(crate) fn binary(operator: BinaryOperator, left: &Value, right: &Value, at: At) -> Eval<Value> {
    use BinaryOperator as Op;
    let numbers = || both(left.to_number(), right.to_number());
    let bools = || both(left.to_bool(), right.to_bool());
    let data = match operator {
        Op::Eq => Data::Bool(left.equals(right)),
        Op::NotEq => Data::Bool(!left.equals(right)),
        Op::Less => Data::Bool(numbers().map(|(a, b)| a < b)?),
        Op::LessEq => Data::Bool(numbers().map(|(a, b)| a <= b)?),
        Op::Greater => Data::Bool(numbers().map(|(a, b)| a > b)?),
        Op::GreaterEq => Data::Bool(numbers().map(|(a, b)| a >= b)?),
        Op::And => Data::Bool(bools().map(|(a, b)| a && b)?),
        Op::Or => Data::Bool(bools().map(|(a, b)| a || b)?),
        Op::Plus | Op::Minus | Op::Mul | Op::Div | Op::Mod => {
            let (a, b) = numbers()?;
            if matches!(operator, Op::Div | Op::Mod) && b.as_integer() == Some(0) {
                return Err(Fault::at(right.at, "division by zero").label("this is zero").into());
            }
            let result = match operator {
                Op::Plus => a.add(b),
                Op::Minus => a.subtract(b),
                Op::Mul => a.multiply(b),
                Op::Div => a.divide(b),
                _ => a.remainder(b),
            };
            Data::Number(result.ok_or_else(|| out_of_range(at))?)
        }
    };
    Ok(Value::new(data, at).marked(left.is_sensitive() || right.is_sensitive()))
}
