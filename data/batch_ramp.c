/* data/batch_ramp.c -- parses a ramp, and evaluates it in whole numbers. */
#include "data/batch_ramp.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Keeps consumed x increments within an int64_t: there are at most 2^20 micro-batches. */
static const int64_t most_samples = 1000000000000;

/* *text: at a number and the separator behind it; moves on. */
static int read_number(const char **text, int64_t *number_out)
{
    char *end;
    errno = 0;
    const int64_t number = strtoll(*text, &end, 10);
    if (end == *text || errno == ERANGE || strchr(", ", *end) == NULL) /* finds the end too */
        return 0;
    *number_out = number;
    end += strspn(end, " ");
    *text = end + (*end == ',');
    return 1;
}

tv_status_t tv_batch_ramp_parse(const char *text, int64_t final, int64_t grain,
                                struct tv_batch_ramp *ramp_out)
{
    struct tv_batch_ramp ramp = {.final = final};
    const char *at = text;
    if (!read_number(&at, &ramp.start) || !read_number(&at, &ramp.increment) ||
        !read_number(&at, &ramp.samples) || *at != '\0' || text[strlen(text) - 1] == ',')
        return TV_ERR(TV_INVALID, "'%s' is not START,INCREMENT,SAMPLES", text);
    if (ramp.start < 1 || ramp.increment < 1 || ramp.samples < 0 || ramp.samples > most_samples)
        return TV_ERR(TV_INVALID,
                      "'%s': START and INCREMENT must be above 0, SAMPLES between 0 and %" PRId64,
                      text, most_samples);
    if (ramp.start % grain != 0 || ramp.increment % grain != 0)
        return TV_ERR(TV_INVALID,
                      "'%s': START and INCREMENT must be multiples of micro-batch x dp = %" PRId64,
                      text, grain);
    if (ramp.start > final || (final - ramp.start) % ramp.increment != 0)
        return TV_ERR(TV_INVALID,
                      "'%s' does not lead from START by whole INCREMENTs to the global batch of "
                      "%" PRId64,
                      text, final);
    *ramp_out = ramp;
    return TV_OK;
}

int64_t tv_batch_ramp_num(const struct tv_batch_ramp *ramp)
{
    return ramp->increment == 0 ? 1 : (ramp->final - ramp->start) / ramp->increment + 1;
}

int64_t tv_batch_ramp_batch(const struct tv_batch_ramp *ramp, int64_t i)
{
    return ramp->increment == 0 ? ramp->final : ramp->start + i * ramp->increment;
}

int64_t tv_batch_ramp_at(const struct tv_batch_ramp *ramp, int64_t consumed)
{
    if (consumed >= ramp->samples)
        return ramp->final;
    const int64_t num_increments = tv_batch_ramp_num(ramp) - 1;
    return tv_batch_ramp_batch(ramp, consumed * num_increments / ramp->samples);
}
