-- The tables of version 5, as it made them, with what a small ledger held.
PRAGMA application_id = 0x63687274;
PRAGMA user_version = 5;
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
    checksum INTEGER,
    seen_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE message (
    seen_at INTEGER PRIMARY KEY,
    message BLOB NOT NULL UNIQUE,
    counts_at INTEGER NOT NULL,
    checksum INTEGER
) STRICT;

CREATE TABLE rejected (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    destination INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    body BLOB NOT NULL,
    person BLOB,
    checksum INTEGER,
    event_at INTEGER
) STRICT;

CREATE INDEX member_pending ON member (audience, pending_since) WHERE pending_since IS NOT NULL;
CREATE INDEX member_person ON member (person) WHERE person IS NOT NULL;
CREATE INDEX parked_since ON parked (parked_at);
CREATE INDEX rejected_person ON rejected (person) WHERE person IS NOT NULL;
CREATE INDEX rejected_destination ON rejected (destination);

INSERT INTO meta (name, value)
    VALUES ('arrival', 1795917772512754);
INSERT INTO meta (name, value)
    VALUES ('arrival_checksum', 3095701037);
INSERT INTO meta (name, value)
    VALUES ('merged', 0);
INSERT INTO meta (name, value)
    VALUES ('merged_checksum', 1696784233);
INSERT INTO meta (name, value)
    VALUES ('person_key', X'51BFA2950A09374CBE739E0C401F50EA150B4BFE7D23C0A9A9EEB52F84A6F497');
INSERT INTO meta (name, value)
    VALUES ('person_key_checksum', 2549930619);
INSERT INTO destination (id, name, environment, paused_at, dropped, checksum)
    VALUES (1, 'production', 'http://127.0.0.1:9/ 64f0c0ffee', NULL, 0, 2605966886);
INSERT INTO audience (id, destination, audience_id, audience_key, context_kind, acknowledged, told_counts_from, claimed_through, unheard_through, walk_after, walk, included, pending, parked, checksum)
    VALUES (1, 1, 'aud_vip', 'vip', 'user', 0, 0, 0, 0, NULL, NULL, 2, 4, 0, 3128232039);
INSERT INTO audience (id, destination, audience_id, audience_key, context_kind, acknowledged, told_counts_from, claimed_through, unheard_through, walk_after, walk, included, pending, parked, checksum)
    VALUES (2, 1, 'aud_beta', 'beta', 'user', 0, 0, 0, 0, NULL, NULL, 1, 1, 0, 994408222);
INSERT INTO member (audience, context_key, included, event_at, version, told, told_at, pending_since, parked_at, flags, key_rule, person, refused_with, checksum)
    VALUES (1, 'ada', 1, 1749988800000000, 1795917772511955, NULL, NULL, 1795917772511955, NULL, 0, 1, NULL, NULL, 2355451359);
INSERT INTO member (audience, context_key, included, event_at, version, told, told_at, pending_since, parked_at, flags, key_rule, person, refused_with, checksum)
    VALUES (1, 'bob', 0, 1749988800000000, 1795917772512076, NULL, NULL, 1795917772512076, NULL, 0, 1, NULL, NULL, 586596577);
INSERT INTO member (audience, context_key, included, event_at, version, told, told_at, pending_since, parked_at, flags, key_rule, person, refused_with, checksum)
    VALUES (1, 'eve', 1, 1795917772508167, 1795917772512131, NULL, NULL, 1795917772512131, NULL, 0, 1, NULL, NULL, 889551606);
INSERT INTO member (audience, context_key, included, event_at, version, told, told_at, pending_since, parked_at, flags, key_rule, person, refused_with, checksum)
    VALUES (1, 'gus', 0, 1795917772508167, 1795917772512569, NULL, NULL, 1795917772512150, NULL, 2, 1, NULL, NULL, 1940077150);
INSERT INTO member (audience, context_key, included, event_at, version, told, told_at, pending_since, parked_at, flags, key_rule, person, refused_with, checksum)
    VALUES (2, 'cyd', 1, 1749988800000000, 1795917772512171, NULL, NULL, 1795917772512171, NULL, 0, 1, NULL, NULL, 2156557901);
INSERT INTO forgotten (person, forgotten_at, checksum, seen_at)
    VALUES (X'4C0C420D6A81CE52509AA78D4D27CAD1', 1795917772508167, 3150835819, 1795917772508167);
INSERT INTO message (seen_at, message, counts_at, checksum)
    VALUES (1795917772511595, X'04041C9C7B2ED383C5139551DAD6ADE6', 1795917772508167, 2717766272);
INSERT INTO message (seen_at, message, counts_at, checksum)
    VALUES (1795917772512361, X'54D6DB552653A287FF9BC0FEBD22457C', 1795917772508167, 3629899493);
INSERT INTO rejected (id, destination, received_at, reason, detail, body, person, checksum, event_at)
    VALUES (1, 1, 1795917772508167, 'membership_unknown', 'The value under the audience''s key in traits_or_props is a text, and neither true nor false.', X'7B2274797065223A20226964656E74696679222C20226D6573736167654964223A20226661792D7669702D323032352D30362D31355431323A30303A30305A222C2022757365724964223A2022666179222C2022636F6E74657874223A207B22706572736F6E6173223A207B22636F6D7075746174696F6E5F636C617373223A202261756469656E6365222C2022636F6D7075746174696F6E5F6964223A20226175645F766970222C2022636F6D7075746174696F6E5F6B6579223A2022766970227D7D2C2022747261697473223A207B22766970223A20226D61796265227D2C202274696D657374616D70223A2022323032352D30362D31355431323A30303A30305A227D', X'6BCD7D43D05DAA1AA78048367A79DCED', 3935230241, 1749988800000000);
