/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stories: the facts of one correlation, in order, with the times between them. A drift, what was
 * done about it, and how it ended are one story, because each fact carries the correlation of the
 * first.
 *
 * Two facts have a correlation of their own and are joined by time: the last load.injected on the
 * same endpoint before a drift (a test knows when it began to hurt, so the delay of the detection
 * is known too), and the first plan.live after a promotion or a way back (that is when it counted).
 *
 * Only the newest FACTS_MAX facts are looked at for a list of stories; a story asked for by its
 * correlation is always whole.
 */
#include "api/priv.h"

#include "base/time.h"

#include <math.h>

#define FACTS_MAX 5000u
#define STORY_FACTS_MAX 1000u
#define STORIES_MAX 100u
#define INJECTED_BEFORE_NS (24 * 3600 * NS_PER_S)
#define LIVE_AFTER_NS (60 * NS_PER_S)

static const struct story_kind {
    const char *prefix, *kind, *outcome;
} kinds[] = {
#define STORY(prefix, kind, outcome) {prefix, kind, outcome},
#include "api/story.def"
#undef STORY
};

static const struct story_kind *kind_of(str type)
{
    for (size_t i = 0; i + 1 < ARRAY_LEN(kinds); i++)
        if (str_starts(type, str_of(kinds[i].prefix)))
            return &kinds[i];
    return &kinds[ARRAY_LEN(kinds) - 1];
}

static bool is_kind(const struct fact *f, const char *kind)
{
    return str_eqz(str_of(kind_of(f->type)->kind), kind);
}

struct story {
    const struct fact **facts;
    size_t n;
    bool matches, loud;
    struct story *next; /* older */
};

struct stories {
    struct meta *m;
    struct arena *a;
    str endpoint, subject; /* subject: "endpoint/<name>" */
    const struct fact *all;
    size_t all_n;
};

/* --- Gathering -------------------------------------------------------------------------------- */

static const struct json *data_of(struct stories *st, const struct fact *f)
{
    struct json *data = NULL;
    struct err e;

    return json_parse(f->data, st->a, &data, &e) ? NULL : data;
}

static bool is_about(struct stories *st, const struct fact *f)
{
    if (!st->endpoint.n || str_eq(f->subject, st->subject))
        return true;
    return str_find(f->data, st->endpoint) >= 0 &&
           str_eq(json_str_or(json_get(data_of(st, f), S("endpoint")), S("")), st->endpoint);
}

static void story_add(struct stories *st, struct story *s, const struct fact *f)
{
    if (s->n == STORY_FACTS_MAX)
        return;
    if ((s->n & (s->n - 1)) == 0) { /* room doubles at powers of two */
        const struct fact **more = ARENA_ARRAY(st->a, const struct fact *, s->n ? 2 * s->n : 1);

        if (s->n)
            memcpy(more, s->facts, s->n * sizeof(*more));
        s->facts = more;
    }
    s->facts[s->n++] = f;
    s->matches |= is_about(st, f);
    s->loud |= !is_kind(f, "quiet") && !is_kind(f, "live");
}

static void story_insert(struct stories *st, struct story *s, const struct fact *f)
{
    size_t at;

    if (s->n == STORY_FACTS_MAX)
        return;
    story_add(st, s, f);
    for (at = s->n - 1; at > 0 && s->facts[at - 1]->seq > f->seq; at--)
        s->facts[at] = s->facts[at - 1];
    s->facts[at] = f;
}

/* --- Joining by time -------------------------------------------------------------------------- */

static const struct fact *first_of(const struct story *s, const char *kind)
{
    for (size_t i = 0; i < s->n; i++)
        if (is_kind(s->facts[i], kind))
            return s->facts[i];
    return NULL;
}

static void join_injected(struct stories *st, struct story *s)
{
    const struct fact *drift = first_of(s, "drift"), *found = NULL;

    if (!drift || first_of(s, "injected"))
        return;
    for (size_t i = 0; i < st->all_n && st->all[i].seq < drift->seq; i++) {
        const struct fact *f = &st->all[i];

        if (is_kind(f, "injected") && str_eq(f->subject, drift->subject) &&
            f->at_ns >= drift->at_ns - INJECTED_BEFORE_NS)
            found = f;
        else if (is_kind(f, "drift") && str_eq(f->subject, drift->subject))
            found = NULL; /* that one belongs to an earlier story */
    }
    if (found)
        story_insert(st, s, found);
}

static const struct fact *last_decided(const struct story *s)
{
    for (size_t i = s->n; i-- > 0;)
        if (is_kind(s->facts[i], "promoted") || is_kind(s->facts[i], "rolled_back"))
            if (!str_starts(s->facts[i]->type, S("check.")))
                return s->facts[i];
    return NULL;
}

static void join_live(struct stories *st, struct story *s)
{
    const struct fact *decided = last_decided(s);

    for (size_t i = 0; decided && i < st->all_n; i++) {
        const struct fact *f = &st->all[i];

        if (f->seq <= decided->seq || !is_kind(f, "live"))
            continue;
        if (f->at_ns <= decided->at_ns + LIVE_AFTER_NS &&
            !str_eq(f->correlation, decided->correlation))
            story_insert(st, s, f);
        return;
    }
}

/* --- Writing ---------------------------------------------------------------------------------- */

static void write_fact(struct json_out *out, const struct fact *f, int64_t first_ns,
                       int64_t before_ns)
{
    char at[TIME_ISO_SIZE];

    time_iso(f->at_ns, at);
    jo_object(out);
    jo_kint(out, S("seq"), f->seq);
    jo_kstr(out, S("at"), str_of(at));
    jo_kint(out, S("at_ns"), f->at_ns);
    jo_kint(out, S("elapsed_ns"), f->at_ns - first_ns);
    jo_kint(out, S("took_ns"), f->at_ns - before_ns);
    jo_kstr(out, S("kind"), str_of(kind_of(f->type)->kind));
    jo_kstr(out, S("type"), f->type);
    jo_kstr(out, S("subject"), f->subject);
    jo_kstr(out, S("actor"), f->actor);
    jo_kstr(out, S("reason"), f->reason);
    jo_key(out, S("data"));
    jo_raw(out, f->data);
    jo_object_end(out);
}

static const struct fact *find_type(const struct story *s, enum fact_type type, bool last)
{
    const struct fact *found = NULL;

    for (size_t i = 0; i < s->n; i++)
        if (str_eqz(s->facts[i]->type, fact_type_name(type))) {
            found = s->facts[i];
            if (!last)
                return found;
        }
    return found;
}

static void write_span(struct json_out *out, const char *name, const struct fact *from,
                       const struct fact *to)
{
    if (from && to && to->at_ns >= from->at_ns)
        jo_kint(out, str_of(name), to->at_ns - from->at_ns);
}

static void write_summary(struct stories *st, const struct story *s, struct json_out *out)
{
    const struct fact *injected = first_of(s, "injected"), *drift = first_of(s, "drift");
    const struct fact *decided = last_decided(s), *live = decided;
    const struct fact *cause = injected ? injected : s->facts[0];
    double seconds = NAN;

    for (size_t i = 0; decided && i < s->n; i++)
        if (is_kind(s->facts[i], "live") && s->facts[i]->seq > decided->seq) {
            live = s->facts[i];
            break;
        }
    if (drift && !injected)
        seconds = json_real_or(json_path(data_of(st, drift), "detection_latency.seconds"), NAN);
    jo_key(out, S("summary"));
    jo_object(out);
    if (isfinite(seconds))
        jo_kint(out, S("detect_ns"), (int64_t)(seconds * (double)NS_PER_S));
    write_span(out, "detect_ns", injected, drift);
    write_span(out, "retrain_ns", find_type(s, FACT_RETRAIN_STARTED, false),
               find_type(s, FACT_RETRAIN_FINISHED, true));
    write_span(out, "rollout_ns", find_type(s, FACT_ROLLOUT_STARTED, true), decided);
    write_span(out, "live_ns", cause, live);
    jo_kint(out, S("total_ns"), s->facts[s->n - 1]->at_ns - s->facts[0]->at_ns);
    jo_object_end(out);
}

static void write_story(struct stories *st, const struct story *s, struct json_out *out)
{
    const char *outcome = "";
    const struct fact *first = s->facts[0], *last = s->facts[s->n - 1], *named = first;

    for (size_t i = 0; i < s->n; i++) {
        const char *o = kind_of(s->facts[i]->type)->outcome;

        if (o[0])
            outcome = o;
        if (str_starts(s->facts[i]->subject, S("endpoint/")))
            named = s->facts[i];
    }
    jo_object(out);
    jo_kstr(out, S("correlation"), named->correlation);
    jo_kstr(out, S("subject"), named->subject);
    jo_kint(out, S("started_ns"), first->at_ns);
    jo_kint(out, S("ended_ns"), last->at_ns);
    jo_kint(out, S("last_seq"), last->seq);
    jo_kstr(out, S("outcome"), str_of(outcome));
    jo_key(out, S("facts"));
    jo_array(out);
    for (size_t i = 0; i < s->n; i++)
        write_fact(out, s->facts[i], first->at_ns, s->facts[i ? i - 1 : 0]->at_ns);
    jo_array_end(out);
    write_summary(st, s, out);
    jo_object_end(out);
}

/* --- The list --------------------------------------------------------------------------------- */

static NODISCARD int read_newest(struct stories *st, struct err *e)
{
    struct fact *facts;
    size_t n;

    TRY(journal_read(st->m, &(struct journal_query){.newest_first = true, .limit = FACTS_MAX},
                     st->a, &facts, &n, e));
    for (size_t i = 0; i < n / 2; i++) { /* oldest first */
        struct fact f = facts[i];

        facts[i] = facts[n - 1 - i];
        facts[n - 1 - i] = f;
    }
    st->all = facts;
    st->all_n = n;
    return 0;
}

/* Groups st->all by correlation; the story with the newest beginning is first. */
static struct story *group(struct stories *st, str correlation)
{
    struct story *first = NULL, **slots;
    size_t mask = 15;

    while (mask < 2 * st->all_n)
        mask = 2 * mask + 1;
    slots = ARENA_ARRAY(st->a, struct story *, mask + 1);
    for (size_t i = 0; i < st->all_n; i++) {
        const struct fact *f = &st->all[i];
        size_t at = hash_str(f->correlation, 0) & mask;

        if (correlation.n && !str_eq(f->correlation, correlation))
            continue;
        while (slots[at] && !str_eq(slots[at]->facts[0]->correlation, f->correlation))
            at = (at + 1) & mask;
        if (!slots[at]) {
            slots[at] = ARENA_NEW(st->a, struct story);
            slots[at]->next = first;
            first = slots[at];
        }
        story_add(st, slots[at], f);
    }
    return first;
}

/* A story whose beginning lies before the newest facts is read whole. */
static NODISCARD int complete(struct stories *st, struct story *s, struct err *e)
{
    struct fact *facts;
    size_t n;

    TRY(journal_read(
        st->m,
        &(struct journal_query){.correlation = s->facts[0]->correlation, .limit = STORY_FACTS_MAX},
        st->a, &facts, &n, e));
    if (n <= s->n)
        return 0;
    s->n = 0;
    for (size_t i = 0; i < n; i++)
        story_add(st, s, &facts[i]);
    return 0;
}

/* Injected traffic that a drift answered to is told there. */
static bool is_told(const struct story *s, struct story *const *chosen, size_t n)
{
    if (s->n != 1 || !is_kind(s->facts[0], "injected"))
        return false;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < chosen[i]->n; j++)
            if (chosen[i]->facts[j] == s->facts[0])
                return true;
    return false;
}

/* A story that lies before the newest facts. */
static NODISCARD int read_old(struct stories *st, str correlation, struct story **ret_story,
                              struct err *e)
{
    struct story *s = ARENA_NEW(st->a, struct story);
    struct fact *facts;
    size_t n;

    TRY(journal_read(st->m, &(struct journal_query){.correlation = correlation, .limit = 1}, st->a,
                     &facts, &n, e));
    if (!n)
        return FAIL(e, NOT_FOUND, "no fact has the correlation '" STR_F "'",
                    STR_A(str_take(correlation, 64)));
    story_add(st, s, &facts[0]);
    *ret_story = s;
    return 0;
}

int api_stories_write(struct meta *m, str endpoint, str correlation, int64_t after_seq,
                      uint32_t limit, struct arena *a, struct json_out *out, struct err *e)
{
    struct stories st = {.m = m, .a = a, .endpoint = endpoint};
    struct story *first, *chosen[STORIES_MAX];
    size_t n = 0;

    st.subject = arena_printf(a, "endpoint/" STR_F, STR_A(endpoint));
    TRY(read_newest(&st, e));
    first = group(&st, correlation);
    if (correlation.n && !first)
        TRY(read_old(&st, correlation, &first, e));
    for (struct story *s = first; s && n < MIN(limit, STORIES_MAX); s = s->next) {
        if (!s->matches || !s->loud || is_told(s, chosen, n))
            continue;
        TRY(complete(&st, s, e));
        join_injected(&st, s);
        join_live(&st, s);
        if (s->facts[s->n - 1]->seq > after_seq)
            chosen[n++] = s;
    }
    jo_object(out);
    jo_key(out, S("stories"));
    jo_array(out);
    while (n-- > 0) /* oldest first: the newest ends up nearest to the prompt */
        write_story(&st, chosen[n], out);
    jo_array_end(out);
    jo_object_end(out);
    return 0;
}
