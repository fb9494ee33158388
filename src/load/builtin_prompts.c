/*
 * builtin_prompts.c - prompts for a comparison without a file: continuations, questions,
 * instructions, code, other languages and long passages, dealt so that every prefix of the list is
 * varied.
 */
#include "load/builtin_prompts.h"

/* NOLINTBEGIN(bugprone-suspicious-missing-comma): a long prompt spans lines */
const char *const builtin_prompts[] = {
    "Explain in two sentences what a compiler does and why programmers need one.",
    "The capital of France is",
    "Tell me an interesting fact about volcanoes.",
    "Write a short poem about a lighthouse keeper who talks to the sea.",
    "Once upon a time",
    "def fibonacci(n):\n    ",
    "List five healthy breakfasts that take less than ten minutes to prepare.",
    "Read the passage and answer the question. The old bridge over the river was closed in "
    "spring after engineers found cracks in two of its pillars. Since then, the people of the "
    "village have had to drive twelve kilometres to reach the market on the other side, and the "
    "small ferry, which carries only six cars, is full from early morning until late in the "
    "evening. Question: why do the people of the village now drive further than before?",
    "Write two sentences about the violin for a school magazine, and add a title.",
    "Water boils at",
    "Bonjour, je voudrais réserver une table pour",
    "Describe the water cycle to a child who has never seen the ocean.",
    "What do most people get wrong about bees? Explain briefly and give an example.",
    "Summarise the plot of a story about a robot that learns to paint.",
    "The opposite of hot is",
    "Give three reasons why regular exercise improves sleep.",
    "Ask me three questions about the internet, from easy to hard, and then answer the hardest "
    "one yourself.",
    "My favourite season is",
    "#include <stdio.h>\n\nint main(void)\n{\n    ",
    "Translate the sentence \"Where is the nearest train station?\" into Spanish.",
    "The moon is",
    "What are the main differences between a virus and a bacterium?",
    "You are a careful editor. Rewrite the following paragraph so that it is shorter and "
    "clearer, and keep all facts. \"Due to the fact that the meeting, which had originally been "
    "planned to take place on Tuesday, was moved to Thursday, it was the case that several of "
    "the participants, in particular those who travel a long way, were not able to be present at "
    "the meeting.\"",
    "Tell me an interesting fact about glaciers.",
    "Write a polite email asking a colleague to review a document by Friday.",
    "Two plus two equals",
    "Write two sentences about tea for a school magazine, and add a title.",
    "Explain how a bicycle stays upright while it is moving.",
    "The largest ocean on Earth is",
    "SELECT name, COUNT(*) FROM orders WHERE",
    "Erkläre in einem Satz, was ein Betriebssystem ist.",
    "What would happen if the Earth stopped rotating for one second?",
    "What do most people get wrong about the human heart? Explain briefly and give an example.",
    "In the morning I like to",
    "Compare renting a flat with buying one for a young family.",
    "Name four inventions that changed how people communicate, and say why.",
    "A train leaves the station at nine o'clock in the morning and travels at eighty kilometres "
    "per hour. A second train leaves the same station one hour later on a parallel track and "
    "travels at one hundred kilometres per hour in the same direction. Work out, step by step, "
    "at what time the second train reaches the first one, and how far from the station that "
    "happens.",
    "Ask me three questions about maps, from easy to hard, and then answer the hardest one "
    "yourself.",
    "A good friend is someone who",
    "Write the opening paragraph of a mystery novel set in a library.",
    "The best way to learn a language is",
    "// Returns true when the string is a palindrome.\nfunction isPalindrome(text) {\n",
    "Tell me an interesting fact about electric cars.",
    "How does a refrigerator keep food cold even on a hot day?",
    "Rain fell on the quiet town",
    "Suggest a weekend plan for someone visiting a city by the sea in winter.",
    "Write two sentences about sleep for a school magazine, and add a title.",
    "Explain the difference between weather and climate with one example.",
    "The fastest land animal is",
    "¿Cuál es la capital de Argentina y por qué es famosa?",
    "What is a prime number, and why is one not a prime number?",
    "Here are the notes of a team meeting: the release is planned for the end of the month; "
    "testing found two serious problems, one in the payment page and one in the export of "
    "reports; Maria works on the first, Tom on the second; the documentation is half done; the "
    "next meeting is on Monday at ten. Write a summary of three sentences for the head of the "
    "department, who was not there.",
    "What do most people get wrong about the Roman Empire? Explain briefly and give an example.",
    "She opened the old wooden door and",
    "Fix the bug in this line and explain it: for (int i = 0; i <= n; i++) sum += a[i];",
    "Write a dialogue between a teacher and a student who forgot the homework.",
    "Ask me three questions about coral reefs, from easy to hard, and then answer the hardest "
    "one yourself.",
    "Photosynthesis is the process by which",
    "Describe the taste of an orange to somebody who has never eaten fruit.",
    "How would you explain inflation to a ten-year-old with pocket money?",
    "The first person to walk on the Moon was",
    "Tell me an interesting fact about mathematics.",
    "List the planets of the solar system in order from the Sun.",
    "A haiku about autumn:",
    "Write a regular expression that matches an IPv4 address, and explain each part of it.",
    "Give a recipe for a simple tomato soup, with quantities for two people.",
    "Write a story of about two hundred words. It takes place in a small observatory on a "
    "mountain in winter. The only two characters are an astronomer who has worked there for "
    "thirty years and a young technician who has arrived that day. Something unexpected appears "
    "on the screen in the middle of the night. The story should end with a question.",
    "Write two sentences about football for a school magazine, and add a title.",
    "Dear hiring manager,",
    "日本の首都は",
    "What are the advantages and disadvantages of working from home?",
    "What do most people get wrong about newspapers? Explain briefly and give an example.",
    "Explain why a boat made of steel floats although steel is heavier than water.",
    "Ingredients for pancakes:",
    "Write a product description for a pencil that never needs sharpening.",
    "Ask me three questions about satellites, from easy to hard, and then answer the hardest one "
    "yourself.",
    "The three primary colours are",
    "What does this shell command do?\n\nfind . -name '*.log' -mtime +7 -delete",
    "What should a beginner know before planting vegetables on a balcony?",
    "Why is the sky blue?",
    "Tell me about the history of the printing press in a few sentences.",
    "Classify each of the following reviews as positive, negative or neutral, and give a "
    "one-word reason for each. Review one: the room was clean, the staff were kind, and "
    "breakfast was better than at home. Review two: we waited for an hour, and when the food "
    "came it was cold. Review three: the museum is open from nine to five and has a cloakroom. "
    "Review four: I would not go there again, even if it were free.",
    "Tell me an interesting fact about bridges.",
    "How do vaccines teach the immune system to recognise a disease?",
    "What is the meaning of recursion?",
    "Write two sentences about wolves for a school magazine, and add a title.",
    "Describe a market in the early morning: the sounds, the smells and the people.",
    "How do airplanes stay in the air?",
    "Convert this JSON to YAML: {\"name\": \"Ada\", \"languages\": [\"C\", \"Python\"], \"age\": "
    "36}",
    "Сколько будет семь умножить на восемь?",
    "What is the difference between a list and a dictionary in Python?",
    "What do most people get wrong about money? Explain briefly and give an example.",
    "Who wrote Romeo and Juliet?",
    "Write a limerick about a programmer who drank too much coffee.",
    "Explain the rules of chess to someone who knows only draughts.",
    "Explain to a new colleague how continuous batching differs from static batching when a "
    "server answers many requests with a language model. Say what happens when one answer is "
    "much longer than the others, why the first token matters to a person who waits, and which "
    "part of the memory limits how many requests can run at the same time.",
    "Ask me three questions about clocks, from easy to hard, and then answer the hardest one "
    "yourself.",
    "When did the Second World War end?",
    "Which habits help people to save money without feeling poor?",
    "Where does chocolate come from?",
    "Explain the time complexity of binary search, and write it in pseudocode.",
    "Tell me an interesting fact about sugar.",
    "Write a birthday message for a grandmother who loves gardening.",
    "What is the speed of light?",
    "How does a search engine decide which pages to show first?",
    "Write two sentences about dreams for a school magazine, and add a title.",
    "Give advice to a student who is nervous before an oral examination.",
    "How many bones does an adult human have?",
    "Quali sono gli ingredienti della pizza margherita?",
    "What makes a good password, and how can one remember it?",
    "Compare the following two plans for a small bakery, and recommend one. Plan A: open a "
    "second shop in the next town, with three new employees and a loan over ten years. Plan B: "
    "stay with one shop, buy a larger oven, and deliver to restaurants in the early morning. The "
    "owner is fifty-eight years old, has no children who want to take over the business, and "
    "likes to be at home in the evening.",
    "What do most people get wrong about paper? Explain briefly and give an example.",
    "What causes earthquakes?",
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, "
    "item):\n",
    "Describe how bread is made, from the field to the table.",
    "Ask me three questions about robots, from easy to hard, and then answer the hardest one "
    "yourself.",
    "Why do leaves change colour in autumn?",
    "Explain why the seasons are opposite in the two hemispheres.",
};
/* NOLINTEND(bugprone-suspicious-missing-comma) */

const size_t builtin_prompt_count = sizeof builtin_prompts / sizeof builtin_prompts[0];
