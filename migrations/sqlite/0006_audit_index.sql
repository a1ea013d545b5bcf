-- With SQLite the index of the audit log is a file of its own (src/store/audit_index/file.rs), so that writing it takes the
-- lock of this one from nobody. The number stands for the tables that PostgreSQL has.
SELECT 1;
