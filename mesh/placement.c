/* mesh/placement.c -- permutations of the world's ranks: made, checked, read from a file. */
#include "mesh/placement.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static tv_status_t check(int num_ranks, const int *place_of)
{
    for (int r = 0; r < num_ranks; r++) {
        if (place_of[r] < 0 || place_of[r] >= num_ranks)
            return TV_ERR(TV_INVALID, "placement: world rank %d is given place %d of %d", r,
                          place_of[r], num_ranks);
        for (int q = 0; q < r; q++) {
            if (place_of[q] == place_of[r])
                return TV_ERR(TV_INVALID,
                              "placement: world ranks %d and %d are both given place %d", q, r,
                              place_of[r]);
        }
    }
    return TV_OK;
}

tv_status_t tv_placement_create(int num_ranks, const int *place_of,
                                struct tv_placement *placement_out)
{
    if (num_ranks < 1)
        return TV_ERR(TV_INVALID, "a placement of %d ranks", num_ranks);
    TV_TRY(check(num_ranks, place_of));
    int *copy = malloc((size_t)num_ranks * sizeof(*copy));
    if (copy == NULL)
        return TV_ERR(TV_NO_MEMORY, "placement of %d ranks", num_ranks);
    memcpy(copy, place_of, (size_t)num_ranks * sizeof(*copy));
    *placement_out = (struct tv_placement){num_ranks, copy};
    return TV_OK;
}

tv_status_t tv_placement_identity(int num_ranks, struct tv_placement *placement_out)
{
    if (num_ranks < 1)
        return TV_ERR(TV_INVALID, "a placement of %d ranks", num_ranks);
    int *place_of = malloc((size_t)num_ranks * sizeof(*place_of));
    if (place_of == NULL)
        return TV_ERR(TV_NO_MEMORY, "placement of %d ranks", num_ranks);
    for (int r = 0; r < num_ranks; r++)
        place_of[r] = r;
    *placement_out = (struct tv_placement){num_ranks, place_of};
    return TV_OK;
}

tv_status_t tv_placement_check_alike(struct tv_comm *world, int num_ranks, const int *place_of)
{
    const int64_t hash = (int64_t)(XXH64(place_of, (size_t)num_ranks * sizeof(*place_of), 0) >> 1);
    int64_t ends[2] = {hash, -hash}; /* the greatest and the least */
    TV_TRY(tv_comm_all_reduce_now(world, ends, 2, TV_I64, TV_MAX));
    return ends[0] == -ends[1] ? TV_OK : TV_ERR(TV_INTERNAL, "ranks have different placements");
}

void tv_placement_destroy(struct tv_placement *placement)
{
    free(placement->place_of);
    *placement = (struct tv_placement){0};
}

/* One line: a number, nothing, or a comment. Returns 1 when a number was read, 0 when none, -1 for
 * anything else. */
static int parse_line(char *line, long *number_out)
{
    line[strcspn(line, "#\r\n")] = '\0';
    char *end;
    errno = 0;
    *number_out = strtol(line, &end, 10);
    const int is_blank_after = end[strspn(end, " \t")] == '\0';
    if (end == line)
        return is_blank_after ? 0 : -1;
    return is_blank_after && errno == 0 && *number_out >= 0 && *number_out <= INT_MAX ? 1 : -1;
}

/* Give world rank `rank` its place; the line is for the sentence. */
static tv_status_t take_place(const char *path, int line, long place, int rank, int *place_of)
{
    for (int other = 0; other < rank; other++) {
        if (place_of[other] == place)
            return TV_ERR(TV_INVALID, "%s:%d: place %ld is taken by world rank %d already", path,
                          line, place, other);
    }
    place_of[rank] = (int)place;
    return TV_OK;
}

static tv_status_t read_lines(FILE *file, const char *path, int num_ranks, int *place_of)
{
    char line[256];
    int num = 0;
    for (int at = 1; fgets(line, sizeof(line), file) != NULL; at++) {
        long place;
        if (strchr(line, '\n') == NULL && !feof(file))
            return TV_ERR(TV_BAD_FILE, "%s:%d: a line of more than %zu characters", path, at,
                          sizeof(line) - 2);
        const int kind = parse_line(line, &place);
        if (kind < 0)
            return TV_ERR(TV_BAD_FILE, "%s:%d: not a mesh rank", path, at);
        if (kind == 0)
            continue;
        if (num == num_ranks)
            return TV_ERR(TV_INVALID, "%s:%d: more than the world's %d ranks", path, at, num_ranks);
        if (place >= num_ranks)
            return TV_ERR(TV_INVALID, "%s:%d: place %ld of a world of %d ranks", path, at, place,
                          num_ranks);
        TV_TRY(take_place(path, at, place, num, place_of));
        num++;
    }
    if (ferror(file))
        return TV_ERR(TV_BAD_FILE, "%s: %s", path, strerror(errno));
    if (num < num_ranks)
        return TV_ERR(TV_INVALID, "%s: %d places for %d ranks", path, num, num_ranks);
    return TV_OK;
}

tv_status_t tv_placement_read(const char *path, int num_ranks, struct tv_placement *placement_out)
{
    if (num_ranks < 1)
        return TV_ERR(TV_INVALID, "a placement of %d ranks", num_ranks);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return TV_ERR(TV_BAD_FILE, "%s: %s", path, strerror(errno));
    int *place_of = calloc((size_t)num_ranks, sizeof(*place_of));
    tv_status_t status = TV_OK;
    if (place_of == NULL)
        status = TV_ERR(TV_NO_MEMORY, "placement of %d ranks", num_ranks);
    if (status == TV_OK)
        status = read_lines(file, path, num_ranks, place_of);
    if (status == TV_OK)
        status = tv_placement_create(num_ranks, place_of, placement_out);
    free(place_of);
    fclose(file);
    return status;
}
