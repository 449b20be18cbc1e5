/* data/blend.c -- the period of a blend is walked once, to set the marks. */
#include "data/blend.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MARK_EVERY = 128, MAX_DIGITS = 9 };

struct tv_blend {
    int num;
    int64_t period;
    int64_t *weights; /* [num], without a common divisor */
    uint32_t *marks; /* [ceil(period / MARK_EVERY), num] positions of each source before the mark */
};

/* The source of position `place` of the period, after counts[num] positions of each. */
static int next_source(const struct tv_blend *b, int64_t place, const uint32_t *counts)
{
    const int64_t share = place > 0 ? place : 1;
    int best = 0;
    int64_t largest = INT64_MIN;
    for (int i = 0; i < b->num; i++) {
        const int64_t behind = b->weights[i] * share - (int64_t)counts[i] * b->period;
        if (behind > largest) {
            largest = behind;
            best = i;
        }
    }
    return best;
}

static void set_marks(struct tv_blend *b)
{
    uint32_t counts[TV_BLEND_MAX_SOURCES] = {0};
    for (int64_t place = 0; place < b->period; place++) {
        if (place % MARK_EVERY == 0)
            memcpy(b->marks + place / MARK_EVERY * b->num, counts,
                   (size_t)b->num * sizeof(*counts));
        counts[next_source(b, place, counts)]++;
    }
}

static int64_t common_divisor(int64_t a, int64_t b)
{
    while (b != 0) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Sum of the reduced weights. */
static tv_status_t reduce(int num, const int64_t *weights, int64_t *divisor_out, int64_t *sum_out)
{
    int64_t divisor = 0, sum = 0;
    for (int i = 0; i < num; i++) {
        if (weights[i] < 1)
            return TV_ERR(TV_INVALID, "a weight of %" PRId64 "; it must be above 0", weights[i]);
        divisor = common_divisor(weights[i], divisor);
    }
    for (int i = 0; i < num; i++) {
        const int64_t weight = weights[i] / divisor;
        if (weight > TV_BLEND_MAX_PERIOD - sum)
            return TV_ERR(TV_INVALID,
                          "the weights are ratios of whole numbers with a sum above %d; round them",
                          TV_BLEND_MAX_PERIOD);
        sum += weight;
    }
    *divisor_out = divisor;
    *sum_out = sum;
    return TV_OK;
}

tv_status_t tv_blend_create(int num, const int64_t *weights, struct tv_blend **blend_out)
{
    int64_t divisor, period;
    if (num < 1 || num > TV_BLEND_MAX_SOURCES)
        return TV_ERR(TV_INVALID, "%d sources to blend; from 1 to %d", num, TV_BLEND_MAX_SOURCES);
    TV_TRY(reduce(num, weights, &divisor, &period));
    struct tv_blend *b = calloc(1, sizeof(*b));
    if (b == NULL)
        return TV_ERR(TV_NO_MEMORY, "a blend of %d sources", num);
    const size_t num_marks = (size_t)((period + MARK_EVERY - 1) / MARK_EVERY) * (size_t)num;
    b->num = num;
    b->period = period;
    b->weights = calloc((size_t)num, sizeof(*b->weights));
    b->marks = calloc(num_marks, sizeof(*b->marks));
    if (b->weights == NULL || b->marks == NULL) {
        tv_blend_destroy(b);
        return TV_ERR(TV_NO_MEMORY, "a blend of %d sources: %zu marks", num, num_marks);
    }
    for (int i = 0; i < num; i++)
        b->weights[i] = weights[i] / divisor;
    set_marks(b);
    *blend_out = b;
    return TV_OK;
}

void tv_blend_destroy(struct tv_blend *blend)
{
    if (blend == NULL)
        return;
    free(blend->weights);
    free(blend->marks);
    free(blend);
}

int64_t tv_blend_period(const struct tv_blend *blend)
{
    return blend->period;
}

void tv_blend_at(const struct tv_blend *blend, int64_t position, int *source_out, int64_t *draw_out)
{
    uint32_t counts[TV_BLEND_MAX_SOURCES];
    const int64_t place = position % blend->period, mark = place / MARK_EVERY;
    memcpy(counts, blend->marks + mark * blend->num, (size_t)blend->num * sizeof(*counts));
    for (int64_t at = mark * MARK_EVERY; at < place; at++)
        counts[next_source(blend, at, counts)]++;
    const int source = next_source(blend, place, counts);
    *source_out = source;
    *draw_out = position / blend->period * blend->weights[source] + counts[source];
}

/* Digits without their point, and how many stood behind it. */
static tv_status_t parse_decimal(const char *text, int64_t *digits_out, int *num_behind_out)
{
    int64_t digits = 0;
    int num_before = 0, num_behind = -1; /* no point yet */
    for (const char *at = text; *at != '\0'; at++) {
        if (*at == '.' && num_behind < 0) {
            num_behind = 0;
            continue;
        }
        int *num = num_behind < 0 ? &num_before : &num_behind;
        if (*at < '0' || *at > '9' || ++*num > MAX_DIGITS)
            return TV_ERR(TV_INVALID,
                          "the weight %s is not a decimal number of at most %d.%d digits", text,
                          MAX_DIGITS, MAX_DIGITS);
        digits = 10 * digits + (*at - '0');
    }
    if (digits == 0)
        return TV_ERR(TV_INVALID, "the weight '%s' is not above 0", text);
    *digits_out = digits;
    *num_behind_out = num_behind < 0 ? 0 : num_behind;
    return TV_OK;
}

tv_status_t tv_blend_weights(int num, const char *const *texts, int64_t *weights_out)
{
    int num_behind[TV_BLEND_MAX_SOURCES], most = 0;
    if (num > TV_BLEND_MAX_SOURCES)
        return TV_ERR(TV_INVALID, "%d weights; at most %d", num, TV_BLEND_MAX_SOURCES);
    for (int i = 0; i < num; i++) {
        TV_TRY(parse_decimal(texts[i], &weights_out[i], &num_behind[i]));
        most = num_behind[i] > most ? num_behind[i] : most;
    }
    for (int i = 0; i < num; i++) {
        for (int k = num_behind[i]; k < most; k++) /* below 10^18 in all */
            weights_out[i] *= 10;
    }
    return TV_OK;
}
