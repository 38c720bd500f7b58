-- A row for each count of tokens (`POST /v1/messages/count_tokens`). Rows of before met the narrower rule, so none is read again.
ALTER TABLE usage_rows
  DROP CONSTRAINT usage_rows_kind_check,
  ADD CONSTRAINT usage_rows_kind_check
    CHECK (kind IN ('generate', 'count', 'embed', 'rerank', 'guardrail', 'judge', 'tool', 'cache')) NOT VALID;
