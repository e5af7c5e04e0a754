//! Names of what the generator writes. Each holds the site, but for the shared tables.

use tdengine_wire::escape::{identifier, qualified};

#[derive(Clone, Debug)]
pub struct Names {
    pub database: String,
    pub stable: String,
    pub site: String,
}

impl Names {
    /// A table of this site's, from 1.
    pub fn table(&self, number: u32) -> String {
        format!("{}_{}_{number}", self.stable, self.site)
    }

    /// A table that this site makes and drops while it runs.
    pub fn extra_table(&self, number: u32) -> String {
        format!("{}_{}_x{number}", self.stable, self.site)
    }

    /// A table that all sites write, from 1.
    pub fn shared_table(&self, number: u32) -> String {
        format!("{}_{}_{number}", self.stable, super::SHARED)
    }

    pub fn column(&self, number: u32) -> String {
        format!("{}_{number}", self.site)
    }

    pub fn number_of_extra_table(&self, table: &str) -> Option<u32> {
        table.strip_prefix(&format!("{}_{}_x", self.stable, self.site))?.parse().ok()
    }

    pub fn number_of_column(&self, column: &str) -> Option<u32> {
        column.strip_prefix(&self.site)?.strip_prefix('_')?.parse().ok()
    }

    /// `table` of the database, quoted.
    pub fn qualified(&self, table: &str) -> String {
        qualified(&self.database, table)
    }

    pub fn database(&self) -> String {
        identifier(&self.database)
    }
}
