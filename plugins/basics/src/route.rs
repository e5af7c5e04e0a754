//! `route`: says of each row which of several conditions it fulfils first.

use std::iter::repeat_n;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, Scalar, StringArray};
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{DataType, Field, SchemaBuilder};
use arrow::error::ArrowError;
use pipeline_sdk::{ComponentDescription, Context, Error, Kind, Message, Output, Payload, Result, Rows, Transform, TransformConfig};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::expression::Expression;

/// Adds a column with the name of the first route whose condition a row fulfils, for the `when` of the sinks.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RouteConfig {
    /// In the order in which they are tried: `[{ name = "hot", when = "value > 90" }, …]`.
    routes: Vec<RouteTo>,
    /// The route of rows that fulfil no condition; NULL where absent.
    otherwise: Option<String>,
    /// The column's name. Rows that have one of this name are rejected.
    #[serde(default = "default_column")]
    column: String,
}

/// One route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RouteTo {
    /// What stands in the column.
    name: String,
    /// As in `where`.
    when: Expression,
}

fn default_column() -> String {
    "route".to_owned()
}

impl TransformConfig for RouteConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("route", Kind::Transform, "Says of each row which condition it fulfils first")
    }

    fn lint(&self) -> Vec<Error> {
        let mut problems = Vec::new();
        if self.column.is_empty() {
            problems.push(Error::fatal("a column needs a name").path("column").hint("leave the key away: it is `route` then"));
        }
        if self.routes.is_empty() {
            problems.push(Error::fatal("no route is named").path("routes").hint("`routes = [{ name = \"hot\", when = \"value > 90\" }]`"));
        }
        for (index, route) in self.routes.iter().enumerate() {
            let path = format!("routes[{index}].name");
            if route.name.is_empty() {
                problems.push(Error::fatal("a route needs a name").path(path).hint("it is what stands in the column"));
                continue;
            }
            let is_known = self.routes[..index].iter().any(|before| before.name == route.name);
            if is_known {
                let hint = "join the conditions with `or`";
                problems.push(Error::fatal(format!("route `{}` is there already", route.name)).path(path).hint(hint));
            }
        }
        problems
    }

    fn build(self, _: Context) -> Result<Box<dyn Transform>> {
        let named = |route: RouteTo| (StringArray::new_scalar(route.name), route.when);
        let routes = self.routes.into_iter().map(named).collect();
        Ok(Box::new(Route { routes, otherwise: self.otherwise, column: self.column }))
    }
}

struct Route {
    routes: Vec<(Scalar<StringArray>, Expression)>,
    otherwise: Option<String>,
    column: String,
}

impl Transform for Route {
    fn apply(&mut self, mut message: Message, out: &mut Output) -> Result<()> {
        if let Payload::Rows(rows) = &mut message.payload {
            rows.batch = self.routed(rows)?;
        }
        out.push(message);
        Ok(())
    }
}

impl Route {
    fn routed(&self, rows: &Rows) -> Result<RecordBatch> {
        let schema = rows.batch.schema();
        if schema.column_with_name(&self.column).is_some() {
            let error = Error::rejected(format!("the rows have a column `{}` already", self.column)).code("route.column");
            return Err(error.hint("`column = \"…\"` names the new one otherwise"));
        }
        let failed = |error: ArrowError| Error::fatal(format!("cannot name the routes of a batch: {error}"));
        let otherwise = repeat_n(self.otherwise.as_deref(), rows.batch.num_rows());
        let mut named: ArrayRef = Arc::new(StringArray::from_iter(otherwise));
        // From the last to the first, so that the first that is true stays. NULL is not true.
        for (name, when) in self.routes.iter().rev() {
            named = zip(&when.mask(rows)?, name, &named).map_err(failed)?;
        }
        let mut fields = SchemaBuilder::from(schema.as_ref());
        fields.push(Field::new(&self.column, DataType::Utf8, true));
        let columns = rows.batch.columns().iter().cloned().chain([named]).collect();
        RecordBatch::try_new(Arc::new(fields.finish()), columns).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use pipeline_sdk::{Header, Lane, Position, Reaction};
    use serde_json::{Value, json};

    use super::*;

    fn config(config: Value) -> RouteConfig {
        serde_json::from_value(config).unwrap()
    }

    fn routed(of: Value) -> Result<RecordBatch> {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![Some(95), Some(5), Some(50), None]));
        let rows = Rows::plain(RecordBatch::try_from_iter([("value", column)]).unwrap());
        let message = Message { header: Header::new(Lane::new("1"), Position::from_number(1)), payload: Payload::Rows(rows) };
        let mut out = Output::default();
        config(of).build(Context::detached())?.apply(message, &mut out)?;
        match out.messages.remove(0).payload {
            Payload::Rows(rows) => Ok(rows.batch),
            _ => panic!("rows stay rows"),
        }
    }

    #[test]
    fn the_first_condition_that_is_true_names_the_route() {
        let routes = json!([{ "name": "hot", "when": "value > 90" }, { "name": "some", "when": "value > 10" }]);
        let check = |of: Value, column: &str, expected: [Option<&str>; 4]| {
            let batch = routed(of).unwrap();
            assert_eq!(batch.schema().field(1).name(), column);
            assert_eq!(batch.column(1).as_string::<i32>().iter().collect::<Vec<_>>(), expected);
        };
        check(json!({ "routes": routes }), "route", [Some("hot"), None, Some("some"), None]);
        let named = json!({ "routes": routes, "otherwise": "rest", "column": "to" });
        check(named, "to", [Some("hot"), Some("rest"), Some("some"), Some("rest")]);
    }

    #[test]
    fn what_cannot_be_is_said() {
        let taken = routed(json!({ "routes": [{ "name": "a", "when": "true" }], "column": "value" })).unwrap_err();
        assert!(taken.to_string().contains("a column `value` already"), "{taken}");
        assert_eq!(taken.reaction, Reaction::Rejected);
        assert_eq!(config(json!({ "routes": [] })).lint()[0].path.as_deref(), Some("routes"));
        let paths = |of: Value| config(of).lint().into_iter().map(|error| error.path.unwrap_or_default()).collect::<Vec<_>>();
        let twice = json!({ "routes": [{ "name": "a", "when": "true" }, { "name": "a", "when": "false" }] });
        assert_eq!(paths(twice), ["routes[1].name"]);
        let nameless = json!({ "routes": [{ "name": "", "when": "true" }, { "name": "", "when": "false" }], "column": "" });
        assert_eq!(paths(nameless), ["column", "routes[0].name", "routes[1].name"]);
    }
}
