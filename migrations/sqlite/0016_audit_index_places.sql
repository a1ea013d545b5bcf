-- With SQLite the index of the audit log is a file of its own (src/store/audit_index/file.rs). The number stands for the columns that
-- PostgreSQL has.
SELECT 1;
