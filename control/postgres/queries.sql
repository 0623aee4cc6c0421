-- name: Secret :one
SELECT sealed FROM cluster.secrets WHERE name = @name;

-- name: AnySecret :one
SELECT EXISTS (SELECT FROM cluster.secrets);

-- name: CreateSecret :execrows
INSERT INTO cluster.secrets (name, sealed) VALUES (@name, @sealed) ON CONFLICT DO NOTHING;

-- name: ReplaceSecret :execrows
UPDATE cluster.secrets SET sealed = @next, changed_at = clock_timestamp() WHERE name = @name AND sealed = @old;

-- TakeLease takes a lease that is free or prolongs one's own, and gives nothing
-- when another has it. Who had it last and lost nothing keeps the token. An heir
-- also takes it from a session of the same control plane.
-- name: TakeLease :one
INSERT INTO cluster.leases AS l (name, holder, session, token, until)
VALUES (@name, @holder, @session, 1, clock_timestamp() + make_interval(secs => @seconds::float8))
ON CONFLICT (name) DO UPDATE
   SET holder = excluded.holder, session = excluded.session, until = clock_timestamp() + make_interval(secs => @seconds::float8),
       token = CASE WHEN l.session = excluded.session THEN l.token ELSE l.token + 1 END
 WHERE l.session = excluded.session OR l.until <= clock_timestamp() OR @heir::boolean AND l.holder = excluded.holder
RETURNING l.token;

-- name: EndLease :exec
UPDATE cluster.leases SET until = clock_timestamp() WHERE name = @name AND session = @session AND until > clock_timestamp();

-- name: Leases :many
SELECT name, holder, token FROM cluster.leases WHERE until > clock_timestamp() ORDER BY name;

-- name: ShowControlPlane :exec
INSERT INTO cluster.control_planes AS c (id, session, api, state, version, since, seen)
VALUES (@id, @session, @api, @state, @version, clock_timestamp(), clock_timestamp())
ON CONFLICT (id) DO UPDATE
   SET session = excluded.session, api = excluded.api, state = excluded.state, version = excluded.version,
       since = CASE WHEN c.session = excluded.session THEN c.since ELSE excluded.since END, seen = excluded.seen;

-- name: HideControlPlane :exec
DELETE FROM cluster.control_planes WHERE id = @id AND session = @session OR seen < clock_timestamp() - interval '1 day';

-- name: ControlPlanes :many
SELECT id, api, state, version, since, seen FROM cluster.control_planes
 WHERE seen > clock_timestamp() - make_interval(secs => @seconds::float8) ORDER BY id;

-- name: Certificate :one
SELECT sealed FROM cluster.certificates WHERE key = @key;

-- name: StoreCertificate :exec
INSERT INTO cluster.certificates AS c (key, sealed) VALUES (@key, @sealed)
ON CONFLICT (key) DO UPDATE SET sealed = excluded.sealed, changed_at = clock_timestamp();

-- name: SealCertificateAgain :exec
UPDATE cluster.certificates SET sealed = @next WHERE key = @key AND sealed = @old;

-- name: DropSealedCertificate :exec
DELETE FROM cluster.certificates WHERE key = @key AND sealed = @sealed;

-- DeleteCertificate deletes a key and all below it.
-- name: DeleteCertificate :exec
DELETE FROM cluster.certificates WHERE key = @key OR starts_with(key, @key || '/');

-- name: CertificateKeys :many
SELECT key FROM cluster.certificates WHERE starts_with(key, @prefix) ORDER BY key;

-- name: CertificateExists :one
SELECT EXISTS (SELECT FROM cluster.certificates WHERE key = @key OR starts_with(key, @key || '/'));

-- name: CertificateStat :one
SELECT changed_at, octet_length(sealed) AS size FROM cluster.certificates WHERE key = @key;

-- name: SealedCertificates :many
SELECT key, sealed FROM cluster.certificates ORDER BY key;

-- TakeCertificateLock takes a lock that is free, or prolongs one's own.
-- name: TakeCertificateLock :execrows
INSERT INTO cluster.certificate_locks AS l (name, holder, until)
VALUES (@name, @holder, clock_timestamp() + make_interval(secs => @seconds::float8))
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
 WHERE l.holder = excluded.holder OR l.until <= clock_timestamp();

-- name: EndCertificateLock :exec
DELETE FROM cluster.certificate_locks WHERE name = @name AND holder = @holder OR until < clock_timestamp() - interval '1 day';
