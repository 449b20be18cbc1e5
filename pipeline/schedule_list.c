/* pipeline/schedule_list.c -- the writer of lists: a rule's text to actions. */
#include "pipeline/schedule_build_internal.h"

/* The W of the oldest I that has none yet, if there is one. */
static void append_oldest_weight(struct tv_list_writer *writer)
{
    const struct tv_action_list *list = &writer->schedule->stages[writer->r];
    while (writer->num_inputs_searched < list->num_actions) {
        const struct tv_action *a = &list->actions[writer->num_inputs_searched++];
        if (a->kind == TV_ACT_BACKWARD_INPUT) {
            tv_schedule_append(writer->schedule, writer->r, TV_ACT_BACKWARD_WEIGHT, a->chunk,
                               a->micro);
            return;
        }
    }
}

static void append_next(struct tv_list_writer *writer, char letter, int chunk)
{
    tv_action_kind_t kind = TV_ACT_FORWARD;
    int *count = &writer->num_forwards[chunk];
    if (letter == 'B' || letter == 'I') {
        kind = letter == 'B' ? TV_ACT_BACKWARD : TV_ACT_BACKWARD_INPUT;
        count = &writer->num_backwards[chunk];
    } else if (letter == 'W') {
        kind = TV_ACT_BACKWARD_WEIGHT;
        count = &writer->num_weights[chunk];
    }
    tv_schedule_append(writer->schedule, writer->r, kind, chunk, (*count)++);
}

static void append_all(struct tv_list_writer *writer, const char *actions)
{
    struct tv_action_list *list = &writer->schedule->stages[writer->r];
    int opens_pair = 0;
    for (const char *c = actions; *c != '\0'; c++) {
        if (*c == '{')
            opens_pair = 1;
        if (*c < 'A' || *c > 'Z')
            continue;
        if (c[1] == 'q')
            append_oldest_weight(writer);
        else
            append_next(writer, *c, c[1] == '1');
        if (opens_pair)
            list->actions[list->num_actions - 1].is_paired = 1;
        opens_pair = 0;
    }
}

void tv_list_repeat(struct tv_list_writer *writer, int times, const char *actions)
{
    for (int n = 0; n < times; n++)
        append_all(writer, actions);
}
