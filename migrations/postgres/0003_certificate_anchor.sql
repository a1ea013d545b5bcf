-- Which anchor a certificate's path led to, as its record has it: when an authority below that anchor is revoked, all that is
-- under it is looked at.

ALTER TABLE certificate ADD COLUMN anchor_id TEXT;

UPDATE certificate SET anchor_id = CAST(record AS json) ->> 'anchor';

CREATE INDEX certificate_by_anchor ON certificate (anchor_id, thumbprint);
