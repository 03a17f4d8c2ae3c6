-- The user of a shared ledger, and the schema that it owns: for psql, as a superuser, in a database of the ledger's own
-- (cohortd help replicas). The variable LEDGER_PASSWORD_FILE of the environment names a file with the user's password.
\set ON_ERROR_STOP on
\set password `cat "$LEDGER_PASSWORD_FILE"`
SELECT length(:'password') < 16 AS is_missing \gset
\if :is_missing
DO $$BEGIN RAISE 'LEDGER_PASSWORD_FILE names no file with a password of 16 characters or more'; END$$;
\endif

BEGIN;
CREATE ROLE cohortd LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD :'password';
REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO cohortd;
CREATE SCHEMA cohortd AUTHORIZATION cohortd;
ALTER ROLE cohortd SET search_path = cohortd;
COMMIT;
