//! Which passwords are taken: NIST SP 800-63B section 3.1.1.2 in short. Long ones, none that everybody
//! tries first; no classes of characters are asked for.

/// Shortest password, in characters.
pub const LENGTH_MIN: usize = 12;

/// Longest password, in characters.
pub const LENGTH_MAX: usize = 256;

/// Fewer different characters than this are a pattern.
const DIFFERENT_MIN: usize = 5;

/// A shorter local part is in many a good password by chance.
const LOCAL_PART_MIN: usize = 4;

/// What everybody tries first, in lower case: of the published lists of leaked passwords those of 12
/// characters or more that no rule below refuses by itself.
const COMMON: [&str; 79] = [
    "1q2w3e4r5t6y",
    "1qaz2wsx3edc",
    "1qaz2wsx3edc4rfv",
    "q1w2e3r4t5y6",
    "q1w2e3r4t5y6u7i8",
    "qazwsxedcrfv",
    "qazwsxedcrfvtgb",
    "zaq12wsxcde3",
    "1234qwerasdf",
    "1234qwerasdfzxcv",
    "123qweasdzxc",
    "qweasdzxc123",
    "qwe123asd456",
    "qwertyuiopasdfghjkl",
    "qwertyasdfgh",
    "qwertyasdfghzxcvbn",
    "zxcvbnmasdfghjkl",
    "a1b2c3d4e5f6",
    "a1b2c3d4e5f6g7h8",
    "12qwaszx34er",
    "1a2b3c4d5e6f",
    "passw0rd1234",
    "p@ssw0rd1234",
    "p@ssword1234",
    "p@ssw0rd12345",
    "pa$$word1234",
    "pa55word1234",
    "password1password",
    "password123password",
    "passwordadmin",
    "adminpassword",
    "mypassword123",
    "mypassword1234",
    "newpassword1",
    "newpassword123",
    "changepassword",
    "changemenow1",
    "changemeplease",
    "defaultpassword",
    "temppassword",
    "temporarypassword",
    "testpassword",
    "testpassword1",
    "secretpassword",
    "thisisapassword",
    "thisismypassword",
    "nopasswordhere",
    "rootpassword",
    "userpassword",
    "passwordpass",
    "letmeinplease",
    "letmeinnow123",
    "welcometohell",
    "welcomehome1",
    "administrateur",
    "superadmin123",
    "superuser1234",
    "iloveyouforever",
    "iloveyousomuch",
    "iloveyoubaby",
    "ilovemyfamily",
    "ilovemymother",
    "jesuschrist1",
    "jesusislord1",
    "jesuslovesme",
    "godisgood123",
    "manchesterunited",
    "liverpoolfc1",
    "chelseafc1905",
    "realmadrid123",
    "barcelona1234",
    "unbelievable",
    "motherfucker",
    "starwars1234",
    "harrypotter1",
    "correcthorsebatterystaple",
    "correct horse battery staple",
    "thequickbrownfox",
    "the quick brown fox",
];

/// Words that no digits and signs around them make better, in lower case.
const WORDS: [&str; 26] = [
    "password",
    "passwort",
    "passphrase",
    "pass",
    "motdepasse",
    "contrasena",
    "qwerty",
    "qwertz",
    "azerty",
    "qwertyuiop",
    "qwertzuiop",
    "azertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "letmein",
    "welcome",
    "admin",
    "administrator",
    "root",
    "iloveyou",
    "changeme",
    "secret",
    "abc",
    "test",
    "login",
    "tokenbroker",
];

/// What is wrong with a password of the user with this e-mail address; nothing when it is taken.
///
/// It is judged, and hashed, as it came: no Unicode normalisation is done, so that whoever types
/// `é` as one character and later as two types two passwords. All common systems send one form.
pub fn faults(password: &str, email: &str) -> Vec<String> {
    let length = password.chars().count();
    let mut faults = Vec::new();
    let mut fault = |text: &str| faults.push(text.to_owned());
    if length < LENGTH_MIN {
        fault("is too short: at least 12 characters are needed");
    }
    if length > LENGTH_MAX {
        fault("is too long: at most 256 characters are allowed");
        // What follows looks at every character.
        return faults;
    }
    if password.chars().any(char::is_control) {
        fault("holds a control character, which nobody can type");
    }
    let lower = password.to_lowercase();
    let local = email.rsplit_once('@').map_or("", |(local, _)| local);
    if local.chars().count() >= LOCAL_PART_MIN && lower.contains(&local.to_lowercase()) {
        fault("holds the e-mail address's own name");
    }
    if length >= LENGTH_MIN {
        if COMMON.contains(&lower.as_str()) || WORDS.contains(&core(&lower)) {
            fault("is one that everybody tries first");
        } else if is_pattern(&lower) {
            fault("is a pattern: characters repeat or follow each other");
        }
    }
    faults
}

/// The text without what is no letter at either end.
fn core(text: &str) -> &str {
    text.trim_matches(|c: char| !c.is_alphabetic())
}

fn is_pattern(text: &str) -> bool {
    let letters: Vec<char> = text.chars().collect();
    let mut different = letters.clone();
    different.sort_unstable();
    different.dedup();
    different.len() < DIFFERENT_MIN || repeats(&letters) || follows(&letters)
}

/// Whether it is something twice or more, the last time perhaps cut short.
fn repeats(letters: &[char]) -> bool {
    (1..=letters.len() / 2).any(|period| {
        let shifted = letters.get(period..).unwrap_or_default();
        letters.iter().zip(shifted).all(|(one, other)| one == other)
    })
}

/// Whether nearly every character is the next of the one before, up or down: `abcdef`, `987654`,
/// with `0` after `9`.
fn follows(letters: &[char]) -> bool {
    let steps = |by: i64| {
        let pairs = letters.iter().zip(letters.iter().skip(1));
        pairs
            .filter(|(one, other)| {
                let (one, other) = (i64::from(u32::from(**one)), i64::from(u32::from(**other)));
                let around = (one, other) == (0x39, 0x30) || (one, other) == (0x30, 0x39);
                other - one == by || around
            })
            .count()
    };
    // Two breaks are left to them: letters and then digits is still a pattern.
    let most = letters.len().saturating_sub(3);
    steps(1) >= most || steps(-1) >= most
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(password: &str) -> usize {
        faults(password, "ada.lovelace@example.com").len()
    }

    #[test]
    fn long_phrases_are_taken_whatever_they_consist_of() {
        for good in [
            "an uncommon phrase",
            "тихий океан зимой",
            "🦀🐙🦑🐌🦋🐢🦎🐍🐊🦖🦕🐳",
            "x7Lk29qPzzR4",
            "blue kettle 1234",
            "     leading blanks",
        ] {
            assert_eq!(count(good), 0, "{good}");
        }
    }

    #[test]
    fn length_is_counted_in_characters() {
        assert_eq!(count("ёжикитуманы"), 1, "11 of two bytes each");
        assert_eq!(count("ёжики туманы"), 0);
        assert_eq!(count(&"abcdefgh-".repeat(29)), 1, "261");
    }

    #[test]
    fn what_everybody_tries_first_is_refused() {
        for bad in [
            "passwordpassword",
            "Password1234",
            "PASSWORD!!!!!",
            "1234password",
            "123456789012",
            "098765432109",
            "aaaaaaaaaaaa",
            "abababababab",
            "abcdefghijkl",
            "abcdefghij12",
            "qwertyuiop12",
            "1qaz2wsx3edc",
            "CorrectHorseBatteryStaple",
            "welcome12345",
            "hellohellohello",
            "tokenbroker1",
            "111122223333",
            "Administrator",
        ] {
            assert_eq!(count(bad), 1, "{bad}");
        }
    }

    #[test]
    fn the_own_name_is_refused_unless_it_is_too_short_to_matter() {
        assert_eq!(count("my Ada.Lovelace rocks"), 1);
        assert!(faults("an adamant phrase", "ada@example.com").is_empty());
    }

    #[test]
    fn no_fault_repeats_the_password() {
        for bad in ["tiny one", "passwordpassword", "ada.lovelace 17"] {
            let told = faults(bad, "ada.lovelace@example.com").join(" ");
            assert!(!told.is_empty() && !told.contains(bad), "{told}");
        }
    }

    #[test]
    fn the_lists_hold_what_no_other_rule_refuses() {
        for common in COMMON {
            assert!(common.chars().count() >= LENGTH_MIN, "{common}");
            assert_eq!(common, common.to_lowercase());
            let refused_anyway = WORDS.contains(&core(common)) || is_pattern(common);
            assert!(!refused_anyway, "{common}");
        }
    }
}
