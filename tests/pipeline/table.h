/* tests/pipeline/table.h -- schedules as text and as vectors, to be written by hand and broken. */
#ifndef TESTS_PIPELINE_TABLE_H
#define TESTS_PIPELINE_TABLE_H
#include "pipeline/schedule_internal.h"
#include <algorithm>
#include <gtest/gtest.h>
#include <sstream>
#include <string>
#include <vector>

class Table
{
  public:
    std::string name = "table";
    int num_chunks = 1, num_micro;
    std::vector<std::vector<struct tv_action>> stages;

    bool is_ordered = true;
    std::vector<int> position_of; /* [stages, chunks] */

    Table(int num_stages, int chunks, int micros, tv_chunk_placement_t placement = TV_PLACE_LOOP)
        : num_chunks(chunks), num_micro(micros), stages((size_t)num_stages)
    {
        for (int place = 0; place < num_stages * chunks; place++)
            position_of.push_back(
                tv_chunk_position(placement, num_stages, place / chunks, place % chunks));
    }

    explicit Table(const struct tv_schedule &schedule)
        : Table(schedule.num_stages, schedule.num_chunks, schedule.num_micro)
    {
        name = schedule.name;
        is_ordered = schedule.is_ordered != 0;
        position_of.assign(schedule.position_of, schedule.position_of + position_of.size());
        for (size_t s = 0; s < stages.size(); s++) {
            const struct tv_action_list &list = schedule.stages[s];
            stages[s].assign(list.actions, list.actions + list.num_actions);
        }
    }

    /* num_chunks 0: the schedule's default. */
    static Table built(const char *name, int num_stages, int num_micro, int num_chunks = 0,
                       int slot_limit = 0)
    {
        struct tv_schedule schedule = {};
        if (num_chunks == 0)
            num_chunks = tv_schedule_default_chunks(name);
        const struct tv_schedule_args args = {name, num_stages, num_chunks, num_micro, slot_limit};
        if (tv_schedule_build(&args, &schedule) != TV_OK) {
            ADD_FAILURE() << tv_error_message();
            return Table(num_stages, num_chunks, num_micro);
        }
        Table table(schedule);
        tv_schedule_destroy(&schedule);
        return table;
    }

    void add(int stage, tv_action_kind_t kind, int chunk, int micro, int peer = -1)
    {
        stages[(size_t)stage].push_back({kind, chunk, micro, peer, 0});
    }

    /* Borrowed: valid until the table changes. */
    const struct tv_schedule *schedule()
    {
        lists.clear();
        for (std::vector<struct tv_action> &actions : stages)
            lists.push_back({(int)actions.size(), actions.data()});
        view = {};
        std::snprintf(view.name, sizeof(view.name), "%s", name.c_str());
        view.num_stages = (int)stages.size();
        view.num_chunks = num_chunks;
        view.num_micro = num_micro;
        view.stages = lists.data();
        view.is_ordered = is_ordered;
        place_of.assign(position_of.size(), 0);
        for (size_t place = 0; place < position_of.size(); place++)
            place_of[(size_t)position_of[place]] = (int)place;
        view.position_of = position_of.data();
        view.place_of = place_of.data();
        return &view;
    }

    /* This table of compute actions with its messages. */
    Table lowered()
    {
        struct tv_schedule with_messages = {};
        EXPECT_EQ(TV_OK, tv_schedule_lower(schedule(), &with_messages)) << tv_error_message();
        Table table(with_messages);
        tv_schedule_destroy(&with_messages);
        return table;
    }

    size_t find(int stage, tv_action_kind_t kind, int micro) const
    {
        const std::vector<struct tv_action> &list = stages[(size_t)stage];
        for (size_t i = 0; i < list.size(); i++) {
            if (list[i].kind == kind && list[i].micro == micro)
                return i;
        }
        ADD_FAILURE() << "no such action";
        return 0;
    }

  private:
    std::vector<struct tv_action_list> lists;
    std::vector<int> place_of;
    struct tv_schedule view;
};

/* "F0", or "F0.1" for chunk 1, "F0+" with the action behind it as a pair; messages with their peer:
 * "SEND_F0>2". */
inline std::string text_of(const struct tv_action &action)
{
    std::string text = tv_action_kind_name(action.kind) + std::to_string(action.micro);
    if (action.chunk > 0)
        text += "." + std::to_string(action.chunk);
    if (!tv_action_is_compute(action.kind))
        text += ">" + std::to_string(action.peer);
    if (action.is_paired)
        text += "+";
    return text;
}

inline std::string text_of(const std::vector<struct tv_action> &list, bool only_compute = false)
{
    std::string text;
    for (const struct tv_action &action : list) {
        if (!only_compute || tv_action_is_compute(action.kind))
            text += (text.empty() ? "" : " ") + text_of(action);
    }
    return text;
}

/* Fills a stage from text as above. */
inline void set_list(Table *table, int stage, const std::string &text)
{
    std::istringstream words(text);
    table->stages[(size_t)stage].clear();
    for (std::string word; words >> word;) {
        const size_t digits = word.find_first_of("0123456789");
        const size_t dot = word.find('.'), arrow = word.find('>');
        int kind = 0;
        while (kind < TV_NUM_ACTION_KINDS &&
               word.substr(0, digits) != tv_action_kind_name((tv_action_kind_t)kind))
            kind++;
        table->add(stage, (tv_action_kind_t)kind,
                   dot == word.npos ? 0 : std::stoi(word.substr(dot + 1)),
                   std::stoi(word.substr(digits)),
                   arrow == word.npos ? -1 : std::stoi(word.substr(arrow + 1)));
        table->stages[(size_t)stage].back().is_paired = word.back() == '+';
    }
}

/* Forwards and backwards in the given orders: `warmup` forwards, then in turn. */
inline std::vector<struct tv_action> in_turn(const std::vector<struct tv_action> &forwards,
                                             const std::vector<struct tv_action> &backwards,
                                             int warmup)
{
    std::vector<struct tv_action> list;
    const int all = (int)forwards.size();
    for (int k = 0; k < all + warmup; k++) {
        if (k < all)
            list.push_back(forwards[(size_t)k]);
        if (k >= warmup)
            list.push_back(backwards[(size_t)(k - warmup)]);
    }
    return list;
}

/* Interleaved 1F1B with groups of these sizes; warm-up of `spread` forwards per stage below and v-1
 * times `base`. Right for groups of equal sizes, see schedule_build_interleaved.c. */
inline Table interleaved_groups(int P, int v, const std::vector<int> &sizes, int spread, int base)
{
    std::vector<struct tv_action> forwards, backwards;
    int first = 0;
    for (int size : sizes) {
        for (int c = 0; c < v; c++) {
            for (int i = first; i < first + size; i++) {
                forwards.push_back({TV_ACT_FORWARD, c, i, -1, 0});
                backwards.push_back({TV_ACT_BACKWARD, v - 1 - c, i, -1, 0});
            }
        }
        first += size;
    }
    Table table(P, v, first);
    for (int r = 0; r < P; r++)
        table.stages[(size_t)r] = in_turn(
            forwards, backwards, std::min(v * first, spread * (P - 1 - r) + (v - 1) * base));
    return table.lowered();
}

/* Interleaved 1F1B: micro-batches in groups of about P. */
inline Table interleaved(int P, int v, int m, int spread)
{
    const int q = std::max(1, m / P);
    std::vector<int> sizes;
    for (int g = 0; g < q; g++)
        sizes.push_back(m / q + (g < m % q));
    return interleaved_groups(P, v, sizes, spread, sizes[0]);
}

inline Table zero_bubble(int P, int m)
{
    return Table::built("zb-h1", P, m);
}
#endif
