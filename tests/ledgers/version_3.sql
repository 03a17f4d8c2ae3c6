-- The tables of version 3, as it made them, with what it made of the ledger of the first version.
PRAGMA application_id = 0x63687274;
PRAGMA user_version = 3;
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;

CREATE TABLE destination (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    environment TEXT NOT NULL,
    paused_at INTEGER,
    dropped INTEGER NOT NULL DEFAULT 0,
    checksum INTEGER
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
    walk_after TEXT,
    walk TEXT,
    included INTEGER NOT NULL DEFAULT 0,
    pending INTEGER NOT NULL DEFAULT 0,
    parked INTEGER NOT NULL DEFAULT 0,
    checksum INTEGER,
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
    refused_with INTEGER,
    checksum INTEGER,
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
    checksum INTEGER,
    PRIMARY KEY (audience, context_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX parked_since ON parked (parked_at);

CREATE TABLE reassertion (
    settled_at INTEGER NOT NULL,
    audience INTEGER NOT NULL,
    context_key TEXT NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (settled_at, audience, context_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE forgotten (
    person BLOB PRIMARY KEY,
    forgotten_at INTEGER NOT NULL,
    checksum INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE rejected (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    destination INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    body BLOB NOT NULL,
    person BLOB,
    checksum INTEGER
) STRICT;
CREATE INDEX rejected_person ON rejected (person) WHERE person IS NOT NULL;
CREATE INDEX rejected_destination ON rejected (destination);

INSERT INTO meta (name, value) VALUES ('arrival', 1750000000000000);
INSERT INTO meta (name, value) VALUES ('person_key', X'27425626E54BDE5DAE209332CE4507E4DA8DA550E6F341B990F3BF98F8C12892');
INSERT INTO destination (id, name, environment, paused_at, dropped, checksum) VALUES (1, 'production', 'https://launchdarkly.test one', NULL, 0, NULL);
INSERT INTO audience (id, destination, audience_id, audience_key, context_kind, acknowledged, told_counts_from, claimed_through, unheard_through, walk_after, walk, included, pending, parked, checksum) VALUES (1, 1, 'aud_vip', 'vip', 'user', 1, 0, 0, 0, NULL, NULL, 3, 1, 1, NULL);
INSERT INTO audience (id, destination, audience_id, audience_key, context_kind, acknowledged, told_counts_from, claimed_through, unheard_through, walk_after, walk, included, pending, parked, checksum) VALUES (2, 1, 'aud_beta', 'beta', 'user', 1, 0, 0, 0, '', 'resync;0 0 0', 1, 1, 0, NULL);
INSERT INTO member (audience, context_key, included, event_at, version, told, told_at, pending_since, parked_at, flags, key_rule, person, refused_with, checksum) VALUES (1, 'ada', 1, 1740000000000000, 1749999000000001, 1, 1749999000000002, NULL, NULL, 0, 1, NULL, NULL, NULL);
INSERT INTO member (audience, context_key, included, event_at, version, told, told_at, pending_since, parked_at, flags, key_rule, person, refused_with, checksum) VALUES (1, 'bob', 0, 1740000000000000, 1749999000000003, 0, 1749999000000004, NULL, NULL, 0, 1, NULL, NULL, NULL);
INSERT INTO member (audience, context_key, included, event_at, version, told, told_at, pending_since, parked_at, flags, key_rule, person, refused_with, checksum) VALUES (1, 'cyd', 1, 1740000000000000, 1749999000000005, NULL, NULL, 1749999000000005, NULL, 0, 1, NULL, NULL, NULL);
INSERT INTO member (audience, context_key, included, event_at, version, told, told_at, pending_since, parked_at, flags, key_rule, person, refused_with, checksum) VALUES (1, 'dan', 1, 1740000000000000, 1749999000000006, NULL, NULL, NULL, 1749999000000007, 0, 1, NULL, NULL, NULL);
INSERT INTO member (audience, context_key, included, event_at, version, told, told_at, pending_since, parked_at, flags, key_rule, person, refused_with, checksum) VALUES (2, 'ada', 1, 1740000000000000, 1749999000000008, NULL, NULL, 1749999000000008, NULL, 0, 1, NULL, NULL, NULL);
INSERT INTO parked (audience, context_key, parked_at, status, code, message, answer_id, checksum) VALUES (1, 'dan', 1749999000000007, 400, 'invalid_request', 'no', 'answer-1', NULL);
INSERT INTO rejected (id, destination, received_at, reason, detail, body, person, checksum) VALUES (1, 1, 1749999000000009, 'no_context_key', 'None.', X'7B7D', NULL, NULL);
