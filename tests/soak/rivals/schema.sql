CREATE TABLE saved (
    owner text, conversation text, id text, role text, content text, status text,
    PRIMARY KEY (owner, conversation, id)
);
