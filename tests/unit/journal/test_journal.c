/* SPDX-License-Identifier: Apache-2.0 */
/* The journal: order, filters, and a tree that notices every change; proofs against a naive tree.
 */
#include "journal/journal.h"

#include "base/files.h"
#include "base/time.h"
#include "check.h"

#include <errno.h>
#include <unistd.h>

static char dir[64];
static struct meta_store *store;
static struct meta *m;
static struct err e;

static void open_fresh(void)
{
    static unsigned count;
    char command[128];

    snprintf(dir, sizeof(dir), "%s/weir-journal-%d-%u",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm", (int)getpid(), count++);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    CHECK(system(command) == 0);
    CHECK_OK(meta_store_open(dir, NULL, &store, &e), &e);
    CHECK_OK(meta_open(store, &m, &e), &e);
}

static void close_and_drop(void)
{
    char command[128];

    meta_close(TAKE(m));
    meta_store_close(TAKE(store));
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    CHECK(system(command) == 0);
}

/* Fact i has a type, subject and correlation that follow from i. */
static int append(int i, struct fact_ref *ret)
{
    AUTO(arena_done) struct arena a = {0};
    struct json *data = json_new_object(&a);
    char subject[32], correlation[32];

    json_set_int(&a, data, S("z"), i);
    json_set_str(&a, data, S("a"), S("caf\xc3\xa9 \"quoted\"\n"));
    json_set_real(&a, data, S("m"), 0.1 * i);
    snprintf(subject, sizeof(subject), "model/%d", i % 3);
    snprintf(correlation, sizeof(correlation), "story-%d", i % 5);
    return journal_append(m,
                          &(struct fact_new){.type = i % 2 ? FACT_ROLLOUT_JUDGED : FACT_PLAN_LIVE,
                                             .subject = str_of(subject),
                                             .actor = S("weir"),
                                             .reason = S("because"),
                                             .correlation = str_of(correlation),
                                             .data = data},
                          ret, &e);
}

static void append_many(int n)
{
    struct meta_tx tx = {0};

    NEED_OK(meta_begin(m, &tx, &e), &e);
    for (int i = 1; i <= n; i++)
        NEED_OK(append(i, NULL), &e);
    NEED_OK(meta_commit(&tx, &e), &e);
}

static void test_append_and_read(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct fact *facts;
    struct fact_ref ref;
    size_t n;

    open_fresh();
    NEED_OK(journal_append(m, &(struct fact_new){.type = FACT_CONTROL_STARTED}, &ref, &e), &e);
    CHECK_INT(ref.seq, 1);
    NEED_OK(append(7, NULL), &e);
    NEED_OK(journal_read(m, &(struct journal_query){0}, &a, &facts, &n, &e), &e);
    NEED(n == 2);
    CHECK_STR(facts[0].type, S("control.started"));
    CHECK_STR(facts[0].correlation, str_of(ref.id)); /* its own id when none was given */
    CHECK_STR(facts[0].data, S("{}"));
    CHECK_INT(facts[1].seq, 2);
    CHECK_STR(facts[1].subject, S("model/1"));
    CHECK_STR(facts[1].data,
              S("{\"a\":\"caf\xc3\xa9 \\\"quoted\\\"\\n\",\"m\":0.7000000000000001,\"z\":7}"));
    CHECK(facts[0].at_ns <= facts[1].at_ns);
    close_and_drop();
}

static size_t count_for(struct journal_query q)
{
    AUTO(arena_done) struct arena a = {0};
    struct fact *facts;
    size_t n = 0;

    CHECK_OK(journal_read(m, &q, &a, &facts, &n, &e), &e);
    for (size_t i = 1; i < n; i++)
        CHECK(q.newest_first ? facts[i].seq < facts[i - 1].seq : facts[i].seq > facts[i - 1].seq);
    return n;
}

static void test_filters(void)
{
    open_fresh();
    append_many(300);
    CHECK_INT(count_for((struct journal_query){0}), 300);
    CHECK_INT(count_for((struct journal_query){.after_seq = 100, .before_seq = 103}), 2);
    CHECK_INT(count_for((struct journal_query){.subject = S("model/0")}), 100);
    CHECK_INT(count_for((struct journal_query){.correlation = S("story-4")}), 60);
    CHECK_INT(count_for((struct journal_query){.type_prefix = S("rollout")}), 150);
    CHECK_INT(count_for((struct journal_query){.type_prefix = S("rollout.")}), 150);
    CHECK_INT(count_for((struct journal_query){.type_prefix = S("rollout.judged")}), 150);
    CHECK_INT(count_for((struct journal_query){.type_prefix = S("roll")}), 0);
    CHECK_INT(count_for((struct journal_query){.type_prefix = S("plan"),
                                               .subject = S("model/0"),
                                               .correlation = S("story-1"),
                                               .newest_first = true}),
              10);
    CHECK_INT(count_for((struct journal_query){.limit = 7, .newest_first = true}), 7);
    CHECK_INT(count_for((struct journal_query){.to_ns = 1}), 0);
    CHECK_INT(count_for((struct journal_query){.from_ns = 1, .to_ns = INT64_MAX}), 300);
    close_and_drop();
}

static void test_bad_facts_are_refused(void)
{
    AUTO(arena_done) struct arena a = {0};
    char *reason = arena_zalloc(&a, 10000);
    struct fact *facts;
    size_t n;

    open_fresh();
    CHECK_FAILS(journal_append(m, &(struct fact_new){.subject = S("\xff")}, NULL, &e),
                INVALID_ARGUMENT, &e, "subject");
    CHECK_FAILS(journal_append(m, &(struct fact_new){.actor = S("a\0b")}, NULL, &e),
                INVALID_ARGUMENT, &e, "actor");
    CHECK_FAILS(journal_append(m, &(struct fact_new){.data = json_new_array(&a)}, NULL, &e),
                INVALID_ARGUMENT, &e, "object");
    memset(reason, 'x', JOURNAL_TEXT_MAX + 1);
    CHECK_FAILS(journal_append(m, &(struct fact_new){.correlation = {reason, JOURNAL_TEXT_MAX + 1}},
                               NULL, &e),
                INVALID_ARGUMENT, &e, "512");
    for (size_t i = 0; i < 10000; i += 2)
        memcpy(reason + i, "\xc3\xa9", 2);
    NEED_OK(journal_append(m, &(struct fact_new){.reason = {reason + 1, 0}}, NULL, &e), &e);
    reason[0] = 'x'; /* the limit now falls into the middle of a character */
    memmove(reason + 1, reason + 2, 9000);
    NEED_OK(journal_append(m, &(struct fact_new){.reason = {reason, 9001}}, NULL, &e), &e);
    NEED_OK(journal_read(m, &(struct journal_query){.after_seq = 1}, &a, &facts, &n, &e), &e);
    NEED(n == 1);
    CHECK_INT(facts[0].reason.n, JOURNAL_REASON_MAX - 1);
    close_and_drop();
}

static void test_clock_never_goes_back(void)
{
    struct fact_ref ref;
    int64_t last = 0;

    open_fresh();
    time_test_virtual(0, 1000 * NS_PER_S);
    for (int i = 0; i < 10; i++) {
        NEED_OK(append(i, &ref), &e);
        CHECK(ref.at_ns >= last);
        CHECK(i < 3 || i > 7 || ref.at_ns == last);
        last = ref.at_ns;
        time_test_step_wall(i == 2 ? -5 * NS_PER_S : NS_PER_S);
    }
    time_test_real();
    close_and_drop();
}

static void test_cursor(void)
{
    int64_t seq;

    open_fresh();
    NEED_OK(journal_cursor_load(m, S("reader"), &seq, &e), &e);
    CHECK_INT(seq, 0);
    NEED_OK(journal_cursor_save(m, S("reader"), 5, &e), &e);
    NEED_OK(journal_cursor_save(m, S("reader"), 6, &e), &e);
    NEED_OK(journal_cursor_load(m, S("reader"), &seq, &e), &e);
    CHECK_INT(seq, 6);
    close_and_drop();
}

/* ----- The tree, against the definition of RFC 6962 written down naively ----- */

static void naive_root(unsigned char (*leaves)[SHA256_BYTES], size_t n, unsigned char *ret)
{
    unsigned char bytes[1 + 2 * SHA256_BYTES] = {1};
    size_t k = 1;

    if (n == 1) {
        memcpy(ret, leaves[0], SHA256_BYTES);
        return;
    }
    while (k * 2 < n)
        k *= 2;
    naive_root(leaves, k, bytes + 1);
    naive_root(leaves + k, n - k, bytes + 1 + SHA256_BYTES);
    sha256_of((str){(char *)bytes, sizeof(bytes)}, ret);
}

#define TREE_SIZE 67
static unsigned char leaves[TREE_SIZE][SHA256_BYTES];

static void load_leaves(void)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf line;
    struct fact *facts;
    size_t n;

    buf_init(&line, BUF_MAX_DEFAULT);
    NEED_OK(journal_read(m, &(struct journal_query){0}, &a, &facts, &n, &e), &e);
    NEED(n == TREE_SIZE);
    for (size_t i = 0; i < n; i++) {
        unsigned char root[SHA256_BYTES];

        buf_clear(&line);
        buf_add_char(&line, '\0');
        journal_fact_line(&line, &facts[i]);
        sha256_of(buf_str(&line), leaves[i]);
        CHECK(memcmp(leaves[i], facts[i].leaf, SHA256_BYTES) == 0);
        naive_root(leaves, i + 1, root);
        CHECK(memcmp(root, facts[i].root, SHA256_BYTES) == 0);
    }
}

static void test_tree_and_proofs(void)
{
    struct journal_head head, older;
    struct journal_proof proof;

    open_fresh();
    append_many(TREE_SIZE);
    load_leaves();
    for (int64_t size = 1; size <= TREE_SIZE; size++) {
        unsigned char root[SHA256_BYTES];

        NEED_OK(journal_head(m, size, &head, &e), &e);
        naive_root(leaves, (size_t)size, root);
        CHECK(memcmp(root, head.root, SHA256_BYTES) == 0);
        for (int64_t seq = 1; seq <= size; seq++) {
            NEED_OK(journal_prove_inclusion(m, seq, size, &proof, &e), &e);
            CHECK(journal_check_inclusion(leaves[seq - 1], seq, &head, &proof));
            CHECK(!journal_check_inclusion(leaves[seq % size], seq, &head, &proof) || size == 1);
            CHECK(!journal_check_inclusion(leaves[seq - 1], seq % size + 1, &head, &proof) ||
                  size == 1);

            NEED_OK(journal_head(m, seq, &older, &e), &e);
            NEED_OK(journal_prove_consistency(m, seq, size, &proof, &e), &e);
            CHECK(journal_check_consistency(&older, &head, &proof));
            older.root[7] ^= 1;
            CHECK(!journal_check_consistency(&older, &head, &proof));
        }
    }
    CHECK_FAILS(journal_prove_inclusion(m, 1, TREE_SIZE + 1, &proof, &e), OUT_OF_RANGE, &e, "67");
    CHECK_FAILS(journal_prove_inclusion(m, 0, 1, &proof, &e), OUT_OF_RANGE, &e, "67");
    CHECK_FAILS(journal_head(m, TREE_SIZE + 1, &head, &e), OUT_OF_RANGE, &e, "67");
    close_and_drop();
}

/* The heads that RFC 6962 fixes whatever the implementation. */
static void test_known_hashes(void)
{
    static const char empty[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    struct journal_head head;
    char hex[SHA256_HEX_SIZE];

    open_fresh();
    NEED_OK(journal_head(m, -1, &head, &e), &e);
    hex_encode(head.root, sizeof(head.root), hex);
    CHECK_INT(head.size, 0);
    CHECK_STR(str_of(hex), str_of(empty));
    NEED_OK(journal_verify(m, &head, &head, NULL, &e), &e);
    close_and_drop();
}

static void test_verify_finds_every_change(void)
{
    static const struct {
        const char *sql;
        int64_t bad_seq;
        const char *says;
    } tampers[] = {
        {"UPDATE journal SET reason = 'another' WHERE seq = 17", 17, "changed"},
        {"UPDATE journal SET at_ns = at_ns + 1 WHERE seq = 1", 1, "changed"},
        {"UPDATE journal SET data = '{}' WHERE seq = 40", 40, "changed"},
        {"UPDATE journal SET actor = 'weir ' WHERE seq = 40", 40, "changed"},
        {"UPDATE journal SET id = '' WHERE seq = 40", 40, "changed"},
        {"UPDATE journal SET root = (SELECT root FROM journal WHERE seq = 8) WHERE seq = 9", 9,
         "root"},
        {"UPDATE journal SET nodes = (SELECT nodes FROM journal WHERE seq = 3) WHERE seq = 9", 9,
         "changed"},
        {"UPDATE journal SET nodes = x'00' WHERE seq = 9", 9, "damaged"},
        {"DELETE FROM journal WHERE seq = 33", 33, "missing"},
        {"DELETE FROM journal WHERE seq > 63", 64, "known head has 67"},
        {"UPDATE journal SET seq = CASE seq WHEN 5 THEN -7 ELSE 5 END WHERE seq IN (5)", 1,
         "damaged"},
    };

    for (size_t i = 0; i < ARRAY_LEN(tampers); i++) {
        struct journal_head known, head;
        int64_t bad = 0;

        open_fresh();
        append_many(TREE_SIZE);
        NEED_OK(journal_head(m, -1, &known, &e), &e);
        NEED_OK(journal_verify(m, &known, &head, &bad, &e), &e);
        CHECK(head.size == TREE_SIZE && memcmp(head.root, known.root, SHA256_BYTES) == 0);
        NEED_OK(meta_exec(m, tampers[i].sql, M_NO_ARGS, &e), &e);
        CHECK_FAILS(journal_verify(m, &known, &head, &bad, &e), DATA_LOSS, &e, tampers[i].says);
        CHECK_INT(bad, tampers[i].bad_seq);
        close_and_drop();
    }
}

/* A journal that was rewritten as a whole is consistent in itself; a head noted before tells. */
static void test_rewritten_journal(void)
{
    struct journal_head known, head;
    int64_t bad = 0;

    open_fresh();
    append_many(20);
    NEED_OK(journal_head(m, -1, &known, &e), &e);
    NEED_OK(meta_exec(m, "DELETE FROM journal", M_NO_ARGS, &e), &e);
    append_many(30);
    NEED_OK(journal_verify(m, NULL, &head, &bad, &e), &e);
    CHECK_FAILS(journal_verify(m, &known, &head, &bad, &e), DATA_LOSS, &e, "first 20 facts");
    CHECK_INT(bad, 20);
    close_and_drop();
}

/* A failed append leaves the tree as it was. */
static void test_faults(void)
{
    for (int64_t k = 0; k < 40; k++) {
        struct journal_head head;
        int64_t done = 0;

        open_fresh();
        file_test_fault(k % 2 ? FILE_OP_WRITE : FILE_OP_SYNC, k / 2, FILE_FAULT_TEAR, ENOSPC,
                        false);
        for (int i = 0; i < 9; i++)
            done += append(i, NULL) == 0;
        file_test_fault(FILE_OP_ANY, -1, FILE_FAULT_ERRNO, 0, false);
        NEED_OK(append(100, NULL), &e);
        NEED_OK(journal_verify(m, NULL, &head, NULL, &e), &e);
        CHECK_INT(head.size, done + 1);
        close_and_drop();
    }
}

static void test_types(void)
{
    enum fact_type type;

    for (int i = 0; i < FACT_COUNT; i++) {
        str name = str_of(fact_type_name((enum fact_type)i));

        CHECK(fact_type_find(name, &type) && (int)type == i);
        CHECK(str_find_char(name, '.') > 0 && strlen(fact_type_help((enum fact_type)i)) > 10);
    }
    CHECK(!fact_type_find(S("drift"), &type));
}

RUN_TESTS(T(test_append_and_read), T(test_filters), T(test_bad_facts_are_refused),
          T(test_clock_never_goes_back), T(test_cursor), T(test_tree_and_proofs),
          T(test_known_hashes), T(test_verify_finds_every_change), T(test_rewritten_journal),
          T(test_faults), T(test_types))
