-- The tables of the first version, as it made them, with what a small ledger held.
PRAGMA application_id = 0x63687274;
PRAGMA user_version = 1;
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;

CREATE TABLE destination (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    environment TEXT NOT NULL
) STRICT;

CREATE TABLE audience (
    id INTEGER PRIMARY KEY,
    destination INTEGER NOT NULL REFERENCES destination(id),
    audience_id TEXT NOT NULL,
    audience_key TEXT NOT NULL,
    context_kind TEXT NOT NULL,
    acknowledged INTEGER NOT NULL DEFAULT 0,
    told_counts_from INTEGER NOT NULL DEFAULT 0,
    claimed_through INTEGER NOT NULL DEFAULT 0,
    unheard_through INTEGER NOT NULL DEFAULT 0,
    resync_after TEXT,
    UNIQUE (destination, audience_id)
) STRICT;

CREATE TABLE member (
    audience INTEGER NOT NULL,
    context_key TEXT NOT NULL,
    included INTEGER NOT NULL,
    event_at INTEGER NOT NULL,
    version INTEGER NOT NULL,
    told INTEGER,
    told_at INTEGER,
    pending_since INTEGER,
    parked_at INTEGER,
    flags INTEGER NOT NULL,
    key_rule INTEGER NOT NULL,
    person BLOB,
    PRIMARY KEY (audience, context_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX member_pending ON member (audience, pending_since) WHERE pending_since IS NOT NULL;
CREATE INDEX member_person ON member (person) WHERE person IS NOT NULL;

CREATE TABLE parked (
    audience INTEGER NOT NULL,
    context_key TEXT NOT NULL,
    parked_at INTEGER NOT NULL,
    status INTEGER NOT NULL,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    answer_id TEXT NOT NULL,
    PRIMARY KEY (audience, context_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE reassertion (
    settled_at INTEGER NOT NULL,
    audience INTEGER NOT NULL,
    context_key TEXT NOT NULL,
    PRIMARY KEY (settled_at, audience, context_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE forgotten (
    person BLOB PRIMARY KEY,
    forgotten_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE rejected (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    destination INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    body BLOB NOT NULL,
    person BLOB
) STRICT;
CREATE INDEX rejected_person ON rejected (person) WHERE person IS NOT NULL;
INSERT INTO meta VALUES ('arrival', 1750000000000000), ('person_key', randomblob(32)),
    ('rejected_count', 1), ('rejected_bytes', 2);
INSERT INTO destination VALUES (1, 'production', 'https://launchdarkly.test one');
INSERT INTO audience VALUES
    (1, 1, 'aud_vip', 'vip', 'user', 1, 0, 0, 0, NULL),
    (2, 1, 'aud_beta', 'beta', 'user', 1, 0, 0, 0, '');
-- Told, left and told, waiting, refused.
INSERT INTO member VALUES
    (1, 'ada', 1, 1740000000000000, 1749999000000001, 1, 1749999000000002, NULL, NULL, 0, 1, NULL),
    (1, 'bob', 0, 1740000000000000, 1749999000000003, 0, 1749999000000004, NULL, NULL, 0, 1, NULL),
    (1, 'cyd', 1, 1740000000000000, 1749999000000005, NULL, NULL, 1749999000000005, NULL, 0, 1, NULL),
    (1, 'dan', 1, 1740000000000000, 1749999000000006, NULL, NULL, NULL, 1749999000000007, 0, 1, NULL),
    (2, 'ada', 1, 1740000000000000, 1749999000000008, NULL, NULL, 1749999000000008, NULL, 0, 1, NULL);
INSERT INTO parked VALUES (1, 'dan', 1749999000000007, 400, 'invalid_request', 'no', 'answer-1');
INSERT INTO rejected VALUES (1, 1, 1749999000000009, 'no_context_key', 'None.', X'7b7d', NULL);
