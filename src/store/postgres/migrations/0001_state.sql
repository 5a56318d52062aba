-- What gates must not forget. Times are microseconds since 1970, amounts are millionths; text that
-- orders or identifies compares by its bytes, whatever the language of the database.

-- One row. `revision` numbers the changes of standings in the order of their commits, which no
-- sequence does: whoever changes something holds this row until the commit.
CREATE TABLE tollgate_meta (
    id smallint PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    epoch uuid NOT NULL,
    revision bigint NOT NULL DEFAULT 0,
    records bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

INSERT INTO tollgate_meta (epoch) VALUES (gen_random_uuid());

CREATE TABLE tollgate_license (
    id text COLLATE "C" PRIMARY KEY,
    issuer text COLLATE "C" NOT NULL,
    assignee text COLLATE "C" NOT NULL,
    kid text COLLATE "C" NOT NULL,
    not_before bigint NOT NULL,
    expires bigint NOT NULL,
    token text NOT NULL,
    registered_at bigint NOT NULL,
    registered_by text NOT NULL
);

CREATE TABLE tollgate_standing (
    issuer text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    reason text NOT NULL,
    actor text NOT NULL,
    since bigint NOT NULL,
    revision bigint NOT NULL UNIQUE,
    PRIMARY KEY (issuer, kind, id)
);

CREATE TABLE tollgate_acceptance (
    issuer text COLLATE "C" NOT NULL,
    license text COLLATE "C" NOT NULL,
    terms_hash text COLLATE "C" NOT NULL,
    accepted_by text NOT NULL,
    accepted_at bigint NOT NULL,
    PRIMARY KEY (issuer, license, terms_hash)
);

-- `granted` is at least all that is held or was spent. `last_grant` is what the last take was given:
-- only so can the statement that takes tell. Half of each page stays free, so that a row that is
-- counted up all the time stays on its page and in its indexes.
CREATE TABLE tollgate_quota (
    counter text COLLATE "C" NOT NULL,
    window_start bigint NOT NULL,
    ends bigint NOT NULL,
    granted numeric(39, 0) NOT NULL,
    last_grant numeric(39, 0) NOT NULL,
    PRIMARY KEY (counter, window_start)
) WITH (fillfactor = 50);

CREATE INDEX tollgate_quota_ends ON tollgate_quota (ends);

CREATE TABLE tollgate_lease (
    lease uuid PRIMARY KEY,
    counter text COLLATE "C" NOT NULL,
    window_start bigint NOT NULL,
    ends bigint NOT NULL,
    gate text COLLATE "C" NOT NULL,
    amount numeric(39, 0) NOT NULL
);

CREATE INDEX tollgate_lease_ends ON tollgate_lease (ends);

CREATE TABLE tollgate_claim (
    request text COLLATE "C" PRIMARY KEY,
    question bytea NOT NULL,
    expires bigint NOT NULL
);

CREATE INDEX tollgate_claim_expires ON tollgate_claim (expires);

-- The last batch of usage that was accepted of each run of each gate.
CREATE TABLE tollgate_usage_batch (
    gate text COLLATE "C" NOT NULL,
    boot uuid NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (gate, boot)
);

-- Sums may outgrow 39 digits, hence no precision: a batch that can never be added would block the
-- batches behind it for ever.
CREATE TABLE tollgate_usage (
    issuer text COLLATE "C" NOT NULL,
    license text COLLATE "C" NOT NULL,
    assignee text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    project text COLLATE "C" NOT NULL,
    metric text COLLATE "C" NOT NULL,
    hour bigint NOT NULL,
    amount numeric NOT NULL,
    PRIMARY KEY (issuer, license, assignee, user_id, project, metric, hour)
);

-- For invoices: what one organization used in one month.
CREATE INDEX tollgate_usage_assignee ON tollgate_usage (assignee, hour);
