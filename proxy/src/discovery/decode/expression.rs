//! CEL expressions that are configured as trees.

use cel::common::ast::{
    CallExpr, EntryExpr, Expr as Ast, IdedEntryExpr, IdedExpr, ListExpr, LiteralValue,
    MapEntryExpr, MapExpr, SelectExpr, operators,
};
use xds::google::api::expr::v1alpha1::constant::ConstantKind;
use xds::google::api::expr::v1alpha1::expr::create_struct::Entry;
use xds::google::api::expr::v1alpha1::expr::create_struct::entry::KeyKind;
use xds::google::api::expr::v1alpha1::expr::{
    Call, CreateList, CreateStruct, ExprKind, Ident, Select,
};
use xds::google::api::expr::v1alpha1::{Constant, Expr};

use super::errors::{At, Result, each, required};
use crate::config::expression::Expression;

/// What CEL called `in` once, as Envoy still knows.
const OLD_IN: &str = "_in_";

/// The expression of this tree.
pub(super) fn expression(proto: &Expr) -> Result<Expression> {
    Expression::compile(tree(proto)?).at("")
}

fn tree(proto: &Expr) -> Result<IdedExpr> {
    let Expr { id: _, expr_kind } = proto;
    let expr = match required("expr_kind", expr_kind)? {
        ExprKind::ConstExpr(proto) => Ast::Literal(literal(proto).at("const_expr")?),
        ExprKind::IdentExpr(Ident { name }) => Ast::Ident(name.clone()),
        ExprKind::SelectExpr(proto) => {
            let Select { operand, field, test_only } = &**proto;
            let operand = branch("operand", operand.as_deref()).at("select_expr")?;
            let (operand, field) = (Box::new(operand), field.clone());
            Ast::Select(SelectExpr { operand, field, test: *test_only })
        }
        ExprKind::CallExpr(proto) => Ast::Call(call(proto).at("call_expr")?),
        ExprKind::ListExpr(CreateList { elements }) => {
            Ast::List(ListExpr::new(each("elements", elements, tree).at("list_expr")?))
        }
        ExprKind::StructExpr(CreateStruct { entries }) => {
            Ast::Map(MapExpr { entries: each("entries", entries, entry).at("struct_expr")? })
        }
    };
    Ok(IdedExpr { id: 0, expr })
}

fn branch(field: &str, proto: Option<&Expr>) -> Result<IdedExpr> {
    tree(required(field, &proto)?).at(field)
}

fn call(proto: &Call) -> Result<CallExpr> {
    let Call { target, function, args } = proto;
    let func_name = if function == OLD_IN { operators::IN.to_owned() } else { function.clone() };
    let target = target.as_deref().map(tree).transpose().at("target")?;
    Ok(CallExpr { func_name, target: target.map(Box::new), args: each("args", args, tree)? })
}

fn entry(proto: &Entry) -> Result<IdedEntryExpr> {
    let Entry { id: _, key_kind, value } = proto;
    let KeyKind::MapKey(key) = required("map_key", key_kind)?;
    let key = tree(key).at("map_key")?;
    let value = branch("value", value.as_ref())?;
    let expr = EntryExpr::MapEntry(MapEntryExpr { key, value, optional: false });
    Ok(IdedEntryExpr { id: 0, expr })
}

fn literal(proto: &Constant) -> Result<LiteralValue> {
    let Constant { constant_kind } = proto;
    Ok(match required("constant_kind", constant_kind)? {
        ConstantKind::BoolValue(value) => LiteralValue::Boolean((*value).into()),
        ConstantKind::Int64Value(value) => LiteralValue::Int((*value).into()),
        ConstantKind::Uint64Value(value) => LiteralValue::UInt((*value).into()),
        ConstantKind::DoubleValue(value) => LiteralValue::Double((*value).into()),
        ConstantKind::StringValue(text) => LiteralValue::String(text.clone().into()),
        ConstantKind::BytesValue(bytes) => LiteralValue::Bytes(bytes.to_vec().into()),
    })
}
