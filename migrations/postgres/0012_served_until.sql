-- By the clocks of those who sign tokens, not of commands: no token that a mark concerns was issued later.

-- How far the lease of any node that serves has come, in Unix milliseconds; 0 before the first. It never goes
-- back, where a clock does.
ALTER TABLE audit_log ADD COLUMN served_until BIGINT NOT NULL DEFAULT 0;
