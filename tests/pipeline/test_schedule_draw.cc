// The pictures of schedules: small ones letter by letter, long ones by their size.
#include "pipeline/schedule_draw.h"
#include "pipeline/table.h"

namespace
{
class Picture
{
  public:
    Picture(const char *name, int P, int v, int m, std::vector<double> costs = {1, 1, 1},
            int joins_pairs = 0)
        : table_(Table::built(name, P, m, v))
    {
        std::vector<double> F((size_t)(P * v), costs[0]), I((size_t)(P * v), costs[1]),
            W((size_t)(P * v), costs[2]);
        const struct tv_schedule_costs c = {F.data(), I.data(), W.data(), 0, nullptr, joins_pairs};
        EXPECT_EQ(TV_OK, tv_schedule_simulate(table_.schedule(), &c, &timing_))
            << tv_error_message();
    }
    ~Picture()
    {
        tv_schedule_timing_destroy(&timing_);
    }
    Picture(const Picture &) = delete;
    Picture &operator=(const Picture &) = delete;

    std::string text(int columns = 80, int is_coloured = 0)
    {
        return collect([&](FILE *out) {
            EXPECT_EQ(TV_OK, tv_schedule_draw_text(table_.schedule(), &timing_, columns,
                                                   is_coloured, out));
        });
    }
    std::string svg()
    {
        return collect([&](FILE *out) {
            EXPECT_EQ(TV_OK, tv_schedule_draw_svg(table_.schedule(), &timing_, out));
        });
    }
    void rename(const char *name)
    {
        table_.name = name;
    }

  private:
    template <typename Draw> static std::string collect(Draw draw)
    {
        char *text = nullptr;
        size_t bytes = 0;
        FILE *out = open_memstream(&text, &bytes);
        draw(out);
        std::fclose(out);
        const std::string result(text, bytes);
        free(text);
        return result;
    }

    Table table_;
    struct tv_schedule_timing timing_ = {};
};

size_t count(const std::string &text, const std::string &part)
{
    size_t n = 0;
    for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1))
        n++;
    return n;
}

std::vector<std::string> lines_of(const std::string &text)
{
    std::istringstream stream(text);
    std::vector<std::string> lines;
    for (std::string line; std::getline(stream, line);)
        lines.push_back(line);
    return lines;
}
} // namespace

TEST(ScheduleDraw, Gpipe)
{
    EXPECT_EQ("0 F0-F1-.........B0----B1----\n"
              "1 ...F0-F1-B0----B1----......\n"
              "  0                         9\n"
              "F forward, B backward, . idle\n",
              Picture("gpipe", 2, 1, 2).text());
}

TEST(ScheduleDraw, ZeroBubbleFillsTheColumnsThereAre)
{
    EXPECT_EQ("0 F0F1..I0W0I1W1\n"
              "1 ..F0I0F1I1W0W1\n"
              "  0            7\n"
              "F forward,\n"
              "I input gradient,\n"
              "W weight gradient,\n"
              ". idle\n",
              Picture("zb-h1", 2, 1, 2).text(20));
}

TEST(ScheduleDraw, OddChunksAreSmall)
{
    const std::string text = Picture("zb-v", 2, 2, 3).text();
    EXPECT_EQ(0u, text.find("0 F0-F1-F2-f0-i0-w0-")) << text;
    EXPECT_NE(text.npos, text.find("small: odd chunks, . idle\n")) << text;
}

TEST(ScheduleDraw, NumbersGoWhenTheyDoNotFit)
{
    // 16 micro-batches at one column per unit: F is one column, B two.
    const std::vector<std::string> lines = lines_of(Picture("1f1b", 4, 1, 16).text());
    ASSERT_EQ(6u, lines.size());
    EXPECT_EQ("3 ...FB0FB1FB2FB3FB4FB5FB6FB7FB8FB9FB-FB-FB-FB-FB-FB-......", lines[3]);
    EXPECT_EQ("  0                                                      57", lines[4]);
}

TEST(ScheduleDraw, LongSchedulesAreScaledDown)
{
    for (const char *name : {"naive", "gpipe", "1f1b", "zb-h2", "interleaved", "zb-v", "v-min"}) {
        const int v = tv_schedule_default_chunks(name);
        for (int columns : {20, 40, 80, 200}) {
            const std::vector<std::string> lines =
                lines_of(Picture(name, 11, v, 100).text(columns));
            ASSERT_LE(13u, lines.size());
            for (const std::string &line : lines)
                EXPECT_LE(line.size(), (size_t)columns) << name << ": " << line;
            for (size_t s = 0; s < 11; s++)
                EXPECT_EQ(lines[0].size(), lines[s].size());
        }
    }
    // gpipe's forwards, idle time and backwards: 100, 60 and 200 of 360 units in 18 columns.
    const std::vector<std::string> lines = lines_of(Picture("gpipe", 21, 1, 100).text(21));
    EXPECT_EQ(" 0 FFFFF...BBBBBBBBBB", lines[0]);
    EXPECT_EQ("10 .FFFF..BBBBBBBBBB.", lines[10]);
}

TEST(ScheduleDraw, UnequalCosts)
{
    EXPECT_EQ("0 F0-F1-..................B0-------------B1-------------\n"
              "1 ...F0-F1-B0-------------B1-------------...............\n",
              Picture("gpipe", 2, 1, 2, {0.5, 2, 0.5}).text().substr(0, 114));
    EXPECT_NE("", Picture("zb-h1", 2, 1, 2, {1, 1, 0}).text()); // W takes no time
    EXPECT_NE("", Picture("1f1b", 2, 1, 2, {1000, 1, 1}).text());
    EXPECT_NE("", Picture("1f1b", 2, 1, 2, {0, 0, 0}).text());
    EXPECT_NE("", Picture("1f1b", 2, 1, 2, {0, 0, 0}).svg());
}

TEST(ScheduleDraw, ColoursOnlyWhenAskedFor)
{
    Picture picture("1f1b", 2, 1, 1);
    EXPECT_EQ(picture.text().npos, picture.text().find('\033'));
    EXPECT_EQ("0 \033[30;44mF0-\033[0m.........\033[30;42mB0----\033[0m",
              lines_of(picture.text(80, 1))[0]);
}

TEST(ScheduleDraw, PairsTimedAsOneAreTwoHalves)
{
    const std::string apart = Picture("dualpipe-v", 2, 2, 6).text();
    const std::string joined = Picture("dualpipe-v", 2, 2, 6, {1, 1, 1}, 1).text();
    EXPECT_NE(apart, joined);
    for (char letter : {'F', 'f', 'B', 'b'})
        EXPECT_EQ(count(apart, std::string(1, letter)), count(joined, std::string(1, letter)))
            << joined;
}

TEST(ScheduleDraw, Svg)
{
    const std::string svg = Picture("zb-v", 2, 2, 3).svg();
    EXPECT_EQ(0u, svg.find("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\""));
    EXPECT_NE(svg.npos, svg.find("zb-v  P=2  v=2  m=3  bubble ")) << svg;
    EXPECT_EQ(12u + 1, count(svg, "<rect class=\"F\"")); // and one in the legend
    EXPECT_EQ(12u + 1, count(svg, "<rect class=\"I\""));
    EXPECT_EQ(12u + 1, count(svg, "<rect class=\"W\""));
    EXPECT_EQ(0u, count(svg, "<rect class=\"B\""));
    EXPECT_EQ(36u / 3, count(svg, "y=\"14\">2</text>")); // every box has its micro-batch
    EXPECT_EQ(18u, count(svg, "opacity=\"0.7\""));
    EXPECT_NE(svg.npos, svg.find("</svg>\n"));
}

TEST(ScheduleDraw, SvgOfALongSchedule)
{
    const std::string svg = Picture("1f1b", 4, 1, 1000).svg();
    EXPECT_EQ(4000u + 1, count(svg, "<rect class=\"F\""));
    EXPECT_EQ(0u, count(svg, "y=\"14\">7</text>")); // no room
    EXPECT_EQ(0u, svg.find("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1688\""))
        << svg.substr(0, 80);
}

TEST(ScheduleDraw, NamesOfFilesCannotBreakTheSvg)
{
    Picture picture("1f1b", 2, 1, 2);
    picture.rename("<a&\"b\">\x01\xff.csv");
    EXPECT_NE(std::string::npos, picture.svg().find(">_a__b____.csv  P=2"));
}
